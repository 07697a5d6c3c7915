"""Pictures with the boxes that a detector found, its class and score above each."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from distillctl.commands.predict import Prediction
from distillctl.data.decode import read_image
from distillctl.data.workers import no_advice
from distillctl.errors import DataError, ProfileError
from distillctl.files import write_atomically
from distillctl.text import one_line

_JPEG = {"format": "JPEG", "quality": 90}
FORMATS: Mapping[str, Mapping[str, Any]] = {".png": {"format": "PNG"}, ".jpg": _JPEG, ".jpeg": _JPEG}
"""Endings of a picture that is drawn, and how it is saved."""

_LONGEST_NAME = 40
_GOLDEN = 0.618034
"""Hues that lie so far apart differ for any number of classes."""


class DrawnBoxes:
    """Draws pictures into a folder, each under the name of its file: JPEG stays JPEG, all else becomes PNG. The second of two files of
    one name is `NAME-2.png`.

    folder: made if it is not there. files: all that will be drawn. classes: each has a colour. reading: how files become pixels, as
    `View.reading`.

    Raises:
        ProfileError: one of the files would be replaced by its drawing.
    """

    def __init__(self, folder: Path, files: Sequence[str], *, classes: Sequence[str], reading: Mapping[str, Any]) -> None:
        self._classes, self._reading = classes, reading
        self._targets = _targets(folder, files)
        sources = {os.path.realpath(file) for file in files}
        if over := next((path for path in self._targets.values() if os.path.realpath(path) in sources), None):
            raise ProfileError(f"`{over}` would be replaced by its drawing", where="--draw", hint="name another folder")
        folder.mkdir(exist_ok=True)

    def draw(self, prediction: Prediction) -> None:
        """Draws one of the files with its boxes; one that is broken is not drawn.

        Raises:
            OSError: it cannot be written.
        """
        if prediction.problem is not None:
            return
        try:
            with no_advice():
                picture = Image.fromarray(read_image(prediction.path, **self._reading).permute(1, 2, 0).numpy())
        except DataError:  # it has gone since it was read
            return
        longest = max(picture.size)
        draw_boxes(picture, prediction, self._classes, width=max(2, round(longest / 300)), letters=max(12, round(longest / 45)))
        path = self._targets[prediction.path]
        write_atomically(path, partial(picture.save, **FORMATS[path.suffix.lower()]))


def draw_boxes(
    picture: Image.Image, prediction: Prediction, classes: Sequence[str], *, scale: float = 1.0, width: int = 2, letters: int = 12
) -> None:
    """Draws the boxes of a prediction on a picture that is `scale` times as large as its file, the likeliest on top.

    width: of a line. letters: height of letters; both in pixels.
    """
    draw = ImageDraw.Draw(picture)
    numbers = {name: number for number, name in enumerate(classes)}
    for (name, score), box in reversed(list(zip(prediction.answers, prediction.boxes, strict=True))):
        left, top, right, bottom = (scale * side for side in box)
        colour = _colour(numbers[name])
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        text = f"{one_line(name, _LONGEST_NAME)} {score:.0%}"
        across, down = font(letters).getlength(text) + 4, letters + 4
        x = min(max(0.0, left), max(0.0, picture.width - across))
        y = top - down if top >= down else max(0.0, top)
        draw.rectangle((x, y, x + across - 1, y + down - 1), colour)
        draw.text((x + 2, y), text, "#000000", font(letters))


@cache
def font(height: int) -> Any:
    """Pillow's own font, which knows Latin letters; others are drawn as boxes."""
    return ImageFont.load_default(height)


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _targets(folder: Path, files: Sequence[str]) -> dict[str, Path]:
    """Where each file is drawn; letters that differ only in case are one name, since some systems cannot tell them apart."""
    targets: dict[str, Path] = {}
    taken: set[str] = set()
    for file in dict.fromkeys(files):
        path = Path(file)
        ending = path.suffix if path.suffix.lower() in FORMATS else ".png"
        name, number = f"{path.stem}{ending}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}{ending}"
        taken.add(name.casefold())
        targets[file] = folder / name
    return targets
