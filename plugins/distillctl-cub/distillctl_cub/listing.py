"""Reads the official listing files: `images.txt`, `image_class_labels.txt`, `train_test_split.txt` and `bounding_boxes.txt`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distillctl import DataError

IMAGES, LABELS, SPLIT, BOXES = "images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"


@dataclass(frozen=True)
class Listing:
    """Every image once, sorted by class folder and file name.

    names: `CLASS/FILE` below `images`.
    labels: number of the class, from 0, in the order of `classes`.
    official_train: whether the official split trains on it.
    classes: names of the class folders, sorted.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    official_train: tuple[bool, ...]
    classes: tuple[str, ...]


def read_listing(folder: Path) -> Listing:
    """The listing of an unpacked data set, checked against itself and against the files in `images`.

    Raises:
        DataError: a listing file is missing or malformed, they do not fit each other, or listed images are missing.
    """
    names = _read(folder / IMAGES)
    labels = {key: _number(value, folder / LABELS, key) for key, value in _read(folder / LABELS).items()}
    trains = {key: _number(value, folder / SPLIT, key) for key, value in _read(folder / SPLIT).items()}
    for file, keys in ((LABELS, labels.keys()), (SPLIT, trains.keys())):
        if keys != names.keys():
            odd = sorted(keys ^ names.keys(), key=lambda key: (len(key), key))
            raise DataError(f"`{IMAGES}` and `{file}` in `{folder}` list different images: {some(odd, 'number')} in only one of them")
    if wrong := [key for key, value in trains.items() if value not in (0, 1)]:
        raise DataError(f"`{folder / SPLIT}` has a value other than 0 and 1 for {some(wrong, 'image')}")
    if len(set(names.values())) != len(names):
        twice = sorted(name for name, count in Counter(names.values()).items() if count > 1)
        raise DataError(f"`{folder / IMAGES}` lists {some(twice, 'file')} twice")
    _check_names(folder, names.values())
    _check_classes(folder, names, labels)
    _check_files(folder / "images", list(names.values()))
    order = sorted(names, key=lambda key: _class_and_file(names[key]))
    classes = tuple(sorted({_class_and_file(name)[0] for name in names.values()}))
    number = {name: label for label, name in enumerate(classes)}
    return Listing(
        names=tuple(names[key] for key in order),
        labels=tuple(number[_class_and_file(names[key])[0]] for key in order),
        official_train=tuple(bool(trains[key]) for key in order),
        classes=classes,
    )


def read_boxes(folder: Path, listing: Listing, margin: float) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of the birds, in the order of the listing; whole pixels that hold the box of `bounding_boxes.txt`.

    margin: share of its width and height by which a box grows at each side.

    Raises:
        DataError: the file is missing or malformed, or lists other images.
    """
    numbers = {name: key for key, name in _read(folder / IMAGES).items()}
    stated = _read(folder / BOXES)
    if stated.keys() != set(numbers.values()):
        odd = sorted(stated.keys() ^ set(numbers.values()), key=lambda key: (len(key), key))
        raise DataError(f"`{IMAGES}` and `{BOXES}` in `{folder}` list different images: {some(odd, 'number')} in only one of them")
    return [_box(stated[numbers[name]], margin, folder / BOXES, numbers[name]) for name in listing.names]


def _box(text: str, margin: float, path: Path, key: str) -> tuple[int, int, int, int]:
    """Of `X Y WIDTH HEIGHT`."""
    try:
        x, y, width, height = (float(value) for value in text.split())
    except ValueError:
        x = y = width = height = math.nan
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        raise DataError(f"`{path}` has `{text[:80]}` for image {key}, which is not a box (x, y, width and height)")
    beside, above = margin * width, margin * height
    return math.floor(x - beside), math.floor(y - above), math.ceil(x + width + beside), math.ceil(y + height + above)


def some(names: Sequence[object], word: str) -> str:
    """`3 files (`a`, `b`, `c`)`: a count with the first names."""
    shown = ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {word}{'' if len(names) == 1 else 's'} ({shown})"


def _read(path: Path) -> dict[str, str]:
    """Lines `NUMBER VALUE` as a dict."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"the listing `{path}` is missing", hint="unpack CUB_200_2011.tgz again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the listing `{path}` cannot be read: {error}") from error
    result: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not value or key in result:
            raise DataError(f"line {number} of `{path}` {'repeats a number' if value else 'is not a number and a value'}: `{line[:80]}`")
        result[key] = value.strip()
    if not result:
        raise DataError(f"the listing `{path}` is empty")
    return result


def _number(value: str, path: Path, key: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise DataError(f"`{path}` has `{value[:80]}` for image {key}, which is not an integer") from error


def _class_and_file(name: str) -> tuple[str, str]:
    folder, _, file = name.partition("/")
    return folder, file


def _check_names(folder: Path, names: Iterable[str]) -> None:
    """Every name is `CLASS/FILE` and stays in the folder."""
    bad = [n for n in names if len(PurePosixPath(n).parts) != 2 or ".." in PurePosixPath(n).parts or n.startswith("/")]
    if bad:
        raise DataError(f"`{folder / IMAGES}` lists {some(bad, 'file')} that are not of the form `CLASS/FILE`")


def _check_classes(folder: Path, names: dict[str, str], labels: dict[str, int]) -> None:
    """Class folders and class numbers mean the same."""
    pairs = {(_class_and_file(names[key])[0], labels[key]) for key in names}
    folders, numbers = {f for f, _ in pairs}, {n for _, n in pairs}
    if not len(pairs) == len(folders) == len(numbers):
        raise DataError(f"class folders and class numbers in `{folder}` do not fit: {len(folders)} folders, {len(numbers)} numbers")
    if len(folders) < 2:
        raise DataError(f"`{folder / IMAGES}` lists only one class")


def _check_files(images: Path, names: Sequence[str]) -> None:
    """Every listed image is there; one look into each folder."""
    present = (
        {f"{sub.name}/{file.name}" for sub in images.iterdir() if sub.is_dir() for file in sub.iterdir()} if images.is_dir() else set()
    )
    if missing := sorted(set(names) - present):
        raise DataError(
            f"of {len(names)} listed images {some(missing, 'file')} are not in `{images}`", hint="unpack CUB_200_2011.tgz again"
        )
