"""Detections in the format in which COCO takes results: a list of boxes, each with the number of its image and of its category.

    [{"image_id": 139, "category_id": 1, "bbox": [left, top, width, height], "score": 0.97, "file_name": "000000000139.jpg"}, …]

`file_name`, the path as it was given, is ours; what reads COCO's results passes over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from distillctl.text import json_text

if TYPE_CHECKING:
    from distillctl.commands.predict import Prediction


def image_ids(files: Sequence[str]) -> list[int]:
    """The number that each file is called, as in COCO (`000000000139.jpg` is 139); where one of them is not called a number, or two are
    called one, their positions from 1.
    """
    stems = [Path(file).stem for file in files]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) <= 18]
    return numbers if len(set(numbers)) == len(files) else list(range(1, len(files) + 1))


def write(file: TextIO, predictions: Iterable[Prediction], *, images: Sequence[int], categories: Mapping[str, int], **_: object) -> None:
    """Writes the list, a line for each box, as predictions come.

    images: number of each image. categories: number of each class.
    """
    file.write("[")
    before = "\n"
    for number, one in zip(images, predictions, strict=True):
        for (name, score), (left, top, right, bottom) in zip(one.answers, one.boxes, strict=True):
            box = [left, top, right - left, bottom - top]
            row = {"image_id": number, "category_id": categories[name], "bbox": box, "score": score, "file_name": one.path}
            file.write(before + json_text(row, indent=None))
            before = ",\n"
    file.write("\n]\n")
