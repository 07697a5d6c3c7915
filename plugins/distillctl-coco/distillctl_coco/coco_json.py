"""COCO's annotation files: `images`, `annotations` with `bbox` (left, top, width, height), and `categories`.

Only what is needed is taken out of the file, whose outlines of objects are most of its bytes.
"""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any

import msgspec
import numpy as np
import torch

from distillctl import DataError
from distillctl_coco.listed import HUGE, Listed, sentences
from distillctl_coco.targets import BoxTargets

MAX_BYTES = 4 << 30
"""COCO's largest annotation file has a tenth of it."""
_OUTSIDE = 1.0  # pixels by which a box may reach beyond the picture before anything is said: coordinates are rounded

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str
    height: _Side
    width: _Side


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    id: int | str | None = None
    bbox: list[float | None] | None = None
    area: float | None = None
    iscrowd: int | bool | None = None


class _Category(msgspec.Struct, gc=False):
    id: _Id
    name: Annotated[str, msgspec.Meta(min_length=1)]


class _File(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: Path, folder: Path) -> Listed:
    """The images of an annotation file, sorted by their number, with their boxes.

    folder: of the images.

    Raises:
        distillctl.DataError: the file is not one of COCO's, contradicts itself or names files outside of the folder.
    """
    file = _decoded(path)
    categories = _categories(file.categories, path)
    images = sorted(file.images, key=lambda image: image.id)
    if not images:
        raise DataError(f"`{path}` lists no images")
    if twice := [number for number, count in Counter(image.id for image in images).items() if count > 1]:
        raise DataError(f"`{path}` lists image {twice[0]} twice")
    for image in images:
        if PurePath(image.file_name).is_absolute() or ".." in PurePosixPath(image.file_name).parts or not image.file_name:
            raise DataError(
                f"`{path}` names `{image.file_name[:80]}` for image {image.id}, which is not a file in the folder of the images"
            )
    ids = torch.tensor([image.id for image in images])
    sizes = torch.tensor([(image.height, image.width) for image in images])
    targets, left_out, remarks = _boxes(file.annotations, ids, sizes, [number for number, _ in categories], path)
    return Listed([folder / image.file_name for image in images], targets, categories, left_out, remarks)


def _boxes(
    annotations: Sequence[_Annotation], ids: torch.Tensor, sizes: torch.Tensor, numbers: list[int], path: Path
) -> tuple[BoxTargets, int, tuple[str, ...]]:
    """The boxes that can be used, how many cannot, and what is to be said."""
    nothing = [np.nan] * 4
    whole = (a.bbox if a.bbox is not None and len(a.bbox) == 4 and None not in a.bbox else nothing for a in annotations)
    boxes = np.array(list(whole), np.float64).reshape(-1, 4)
    area = np.array([np.nan if a.area is None else a.area for a in annotations], np.float64)
    crowd = np.array([bool(a.iscrowd) for a in annotations], bool)
    image, unknown_image = _positions([a.image_id for a in annotations], ids.numpy())
    label, unknown_class = _positions([a.category_id for a in annotations], np.array(numbers))
    boxes[~(np.abs(boxes) < HUGE).all(1)] = np.nan
    left, top, width, height = boxes.T
    right, bottom = left + width, top + height
    image_height, image_width = sizes.numpy()[image].T
    with np.errstate(invalid="ignore"):
        beyond = np.maximum.reduce([-left, -top, right - image_width, bottom - image_height])
        faults = {
            "are of an image that is not listed, and are left out": unknown_image,
            "are of a category that is not listed, and are left out": unknown_class,
            "have no box of four finite numbers, and are left out": np.isnan(left),
            "have a box without width or height, and are left out": ~((width > 0) & (height > 0)),
            "have a box outside of the picture, and are left out": ~(
                (left < image_width) & (top < image_height) & (right > 0) & (bottom > 0)
            ),
        }
        area = np.where((area >= 0) & (area < HUGE), area, width * height)
    good = np.ones(len(boxes), bool)
    problems = {}
    for words, found in faults.items():
        problems[words] = [annotations[i].id for i in np.flatnonzero(found & good).tolist()]
        good &= ~found
    left_out = int((~good).sum())
    far = np.flatnonzero(good & (beyond > _OUTSIDE))
    problems["reach beyond the picture, and are cut to it in training"] = [annotations[i].id for i in far.tolist()]
    corners = np.stack([left, top, right, bottom], 1)[good]
    rows = (image[good], corners.astype(np.float32), label[good], crowd[good], area[good].astype(np.float32))
    return BoxTargets(ids, sizes, *map(torch.from_numpy, rows)), left_out, sentences(problems, "annotation", path)


def _positions(wanted: list[int], known: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where each number stands among sorted ones, and whether it does not."""
    numbers = np.array(wanted, np.int64)
    found = np.searchsorted(known, numbers).clip(max=len(known) - 1)
    return found, known[found] != numbers


def _categories(listed: Sequence[_Category], path: Path) -> tuple[tuple[int, str], ...]:
    categories = tuple(sorted((one.id, one.name) for one in listed))
    if not categories:
        raise DataError(f"`{path}` lists no categories")
    for column, what in ((0, "number"), (1, "name")):
        twice = next((value for value, count in Counter(one[column] for one in categories).items() if count > 1), None)
        if twice is not None:
            raise DataError(f"two categories of `{path}` have the {what} `{twice}`")
    return categories


def _decoded(path: Path) -> _File:
    hint = "COCO's files of objects have lists `images`, `annotations` and `categories`"
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"`{path}` has {size / 1e9:.1f} GB, more than an annotation file of {MAX_BYTES / 1e9:.1f} GB that is read")
        with path.open("rb") as file:
            if not size:
                raise DataError(f"`{path}` is empty", hint=hint)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
                return _parsed(view)
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise DataError(f"`{path}` is not an annotation file of COCO: {error}", hint=hint) from error
    except RecursionError as error:
        raise DataError(f"`{path}` is not an annotation file of COCO: its lists lie too deep in each other", hint=hint) from error
    except ValueError as error:
        raise DataError(f"`{path}` is broken or not JSON: {error}", hint=hint) from error


def _parsed(content: memoryview) -> _File:
    try:
        return msgspec.json.decode(content, type=_File)
    except msgspec.DecodeError as error:
        # Python writes NaN and Infinity, which are not JSON; boxes of such numbers are told and left out.
        if isinstance(error, msgspec.ValidationError) and "out of range" not in str(error):
            raise
        return msgspec.convert(json.loads(bytes(content)), _File)
