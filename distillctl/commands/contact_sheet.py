"""A contact sheet: pictures in a grid, below each the student's answer, its probability and the file; or how many objects it found, which
are drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from distillctl.api.class_folders import class_name
from distillctl.commands.drawn_boxes import FORMATS, draw_boxes
from distillctl.commands.drawn_boxes import font as _font
from distillctl.commands.predict import Prediction
from distillctl.data.decode import read_image
from distillctl.data.workers import no_advice
from distillctl.errors import DataError
from distillctl.files import write_atomically
from distillctl.text import counted, one_line

_SIDE, _GAP, _FRAME = 200, 14, 4
"""Pixels: the square that holds a picture, what lies between two, and the frame around one."""
_NAME, _SMALL = 15, 12
"""Height of letters."""
_LINE = {_NAME: 19, _SMALL: 16}
_CAPTION = 6 + 2 * _LINE[_NAME] + 2 * _LINE[_SMALL]
_NARROWEST = 2 * _SIDE
_PAPER, _MOUNT, _GREY, _INK, _FAINT = "#ffffff", "#f6f6f6", "#d8d8d8", "#1a1a1a", "#595959"
_RIGHT, _WRONG = "#1a9850", "#d73027"


def write_sheet(
    path: Path,
    predictions: Sequence[Prediction],
    *,
    classes: Sequence[str],
    reading: Mapping[str, Any],
    title: str,
    of: int,
    boxes: bool = False,
) -> None:
    """Draws a sheet and writes it, in the format that its ending (one of `FORMATS`) names.

    reading, title, of, boxes: as `draw_sheet` takes them.

    Raises:
        OSError: it cannot be written.
    """
    sheet = draw_sheet(predictions, classes=classes, reading=reading, title=title, of=of, boxes=boxes)
    write_atomically(path, partial(sheet.save, **FORMATS[path.suffix.lower()]))


def draw_sheet(
    predictions: Sequence[Prediction], *, classes: Sequence[str], reading: Mapping[str, Any], title: str, of: int, boxes: bool = False
) -> Image.Image:
    """A sheet of these predictions. A file that is broken is a grey tile that says why.

    A picture in a folder that is called like one of the classes has a green frame if that is the answer, and a red one otherwise.

    Args:
        predictions: at least one.
        classes: names that folders may have.
        reading: how files become pixels, as `View.reading`.
        title: what the sheet begins with.
        of: how many images there are, of which these are the first.
        boxes: the predictions are those of a detector.
    """
    known = set(classes)
    right = [None if boxes else _is_right(one, known) for one in predictions]
    columns = max(1, min(len(predictions), round(math.sqrt(1.8 * len(predictions)))))
    rows = math.ceil(len(predictions) / columns)
    width = max(columns * (_SIDE + _GAP), _NARROWEST) + _GAP
    head = _wrapped(_heading(title, len(predictions), of, right), _font(_NAME), width - 2 * _GAP, 4)
    top = 2 * _GAP + len(head) * _LINE[_NAME]
    sheet = Image.new("RGB", (width, top + rows * (_SIDE + _CAPTION + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_GAP, _GAP), head, _NAME, _INK)
    for number, (one, judged) in enumerate(zip(predictions, right, strict=True)):
        row, column = divmod(number, columns)
        _tile(sheet, draw, _GAP + column * (_SIDE + _GAP), top + row * (_SIDE + _CAPTION + _GAP), one, judged, reading, classes, boxes)
    return sheet


def _heading(title: str, shown: int, of: int, right: Sequence[bool | None]) -> str:
    text = f"{one_line(title)}: " + (counted(of, "image") if shown == of else f"the first {shown:,} of {of:,} images")
    known = [judged for judged in right if judged is not None]
    return f"{text}; {sum(known):,} of {len(known):,} as their folder is called (green), the others red" if known else text


def _is_right(one: Prediction, known: set[str]) -> bool | None:
    """Whether the answer is what the folder of the file is called; None if that is not a class, or there is no answer."""
    folder = class_name(Path(one.path).absolute().parent.name)
    return one.answers[0][0] == folder if one.answers and folder in known else None


def _tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
    one: Prediction,
    judged: bool | None,
    reading: Mapping[str, Any],
    classes: Sequence[str],
    boxes: bool,
) -> None:
    picture = one.error or _thumbnail(one, reading, classes)
    draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), _GREY if isinstance(picture, str) else _MOUNT)
    if isinstance(picture, str):
        lines = _wrapped(picture, _font(_SMALL), _SIDE - 20, 9)
        _write(draw, (x + 10, y + (_SIDE - len(lines) * _LINE[_SMALL]) // 2), lines, _SMALL, _FAINT)
    else:
        left, above = x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2
        sheet.paste(picture, (left, above))
        if judged is not None:
            box = (left - _FRAME, above - _FRAME, left + picture.width + _FRAME - 1, above + picture.height + _FRAME - 1)
            draw.rectangle(box, outline=_RIGHT if judged else _WRONG, width=_FRAME)
    y += _SIDE + 6
    if boxes and not one.error:
        lines = _wrapped(_counted(one), _font(_NAME), _SIDE, 2)
        _write(draw, (x, y), lines, _NAME, _INK)
        y += len(lines) * _LINE[_NAME]
    for name, share in () if boxes else one.answers[:1]:
        lines = _wrapped(name, _font(_NAME), _SIDE, 2)
        _write(draw, (x, y), lines, _NAME, _INK)
        y += len(lines) * _LINE[_NAME]
        _write(draw, (x, y), [f"{share:.1%}"], _SMALL, _INK)
        y += _LINE[_SMALL]
    path = Path(one.path)
    _write(draw, (x, y), [_shortened(f"{path.parent.name}/{path.name}", _font(_SMALL), _SIDE, start=True)], _SMALL, _FAINT)


def _counted(one: Prediction) -> str:
    """How many objects of each class: `2 cat, 1 dog`."""
    return ", ".join(f"{count} {name}" for name, count in Counter(name for name, _ in one.answers).items()) or "nothing"


def _thumbnail(one: Prediction, reading: Mapping[str, Any], classes: Sequence[str]) -> Image.Image | str:
    """The upright picture, as large as fits, with its boxes; or what has become of its file since it was read."""
    path = one.path
    try:
        with no_advice():
            picture = Image.fromarray(read_image(path, **reading).permute(1, 2, 0).numpy())
    except DataError as error:
        return Prediction(path, (), error.problems[0]).error
    space = _SIDE - 2 * _FRAME
    scale = space / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 4 else Image.Resampling.NEAREST, reducing_gap=3.0)
    if one.boxes:
        draw_boxes(picture, one, classes, scale=scale)
    return picture


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], height: int, colour: str) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * _LINE[height]), line, colour, _font(height))


def _wrapped(text: str, font: Any, width: int, most: int) -> list[str]:
    """Text on at most so many lines, broken between words where it can be; what is too long ends in an ellipsis."""
    rest, lines = one_line(text).strip(), list[str]()
    while rest and len(lines) < most - 1 and not _fits(rest, font, width):
        end = _line_end(rest, font, width)
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*lines, _shortened(rest, font, width)] if rest or not lines else lines


def _line_end(text: str, font: Any, width: int) -> int:
    """How many characters the first line has: up to the last space that leaves it short enough, or all that fit."""
    end = _longest(len(text), lambda n: _fits(text[:n], font, width))
    space = text.rfind(" ", 0, end + 1)
    return space if space > 0 else max(1, end)


def _shortened(text: str, font: Any, width: int, *, start: bool = False) -> str:
    """Text on one line, cut at its end, or at its start, so that it fits."""
    text = one_line(text)
    if _fits(text, font, width):
        return text

    def cut(kept: int) -> str:
        return f"…{text[len(text) - kept :]}" if start else f"{text[:kept].rstrip()}…"

    return cut(_longest(len(text), lambda n: _fits(cut(n), font, width)))


def _fits(text: str, font: Any, width: int) -> bool:
    return len(text) <= width and font.getlength(text) <= width


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, where all smaller ones do; 0 if none does."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least
