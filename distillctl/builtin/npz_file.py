"""What lies in an `.npz` file of images, checked, without torch. Nothing of a pickle is executed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillctl.builtin.npz_options import VAL_FRACTION, NpzOptions
from distillctl.errors import DataError, ProfileError
from distillctl.text import some

SPLITS = ("train", "val", "test")
DEFAULTS = {"val": VAL_FRACTION, "test": 0.0}
"""Shares that are carved where nobody says otherwise."""


@dataclass(frozen=True)
class Arrays:
    """labels: int64, (N,), of every split that has arrays; `train` always has.

    images: the name of each split's array in the file. shapes: theirs. classes: in the order of their labels.
    """

    images: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    labels: Mapping[str, Any]
    classes: tuple[str, ...]


def read_arrays(options: NpzOptions) -> Arrays:
    """Labels and shapes; images are left in the file.

    Raises:
        ProfileError: there is no such file, or a fraction is asked for where an array decides.
        DataError: its arrays are not what they should be.
    """
    file = options.root
    if not file.is_file():
        raise ProfileError(f"there is no file `{file}`", where="[dataset]", hint="`root` names an `.npz` file")
    with opened(file) as archive:
        names = _names(file, archive.files)
        for name, default in DEFAULTS.items():
            if name in names and getattr(options, f"{name}_fraction") != default:
                raise ProfileError(f"`{name}_fraction` has no effect: `{file}` has images of {name}", where="[dataset]")
        shapes = {split: _shape(file, images) for split, (images, _) in names.items()}
        labels = {split: _labels(file, column, archive[column], shapes[split][0]) for split, (_, column) in names.items()}
        classes = [str(name) for name in np.ravel(archive["classes"])] if "classes" in archive.files else None
    if len({shape[1:] for shape in shapes.values()}) > 1:
        raise DataError(f"the images in `{file}` have several sizes: {', '.join(f'{n} {s[1:]}' for n, s in shapes.items())}")
    return Arrays({split: images for split, (images, _) in names.items()}, shapes, labels, _classes(file, labels, classes))


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The arrays in a file, read when they are asked for.

    Raises:
        DataError: they cannot be read.
    """
    if not zipfile.is_zipfile(file):
        raise DataError(f"`{file}` is not an `.npz` file")
    try:
        with np.load(file, allow_pickle=False) as archive:
            yield archive
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"`{file}` cannot be read as arrays: {error}") from error


def preview(options: NpzOptions) -> str:
    """Classes and numbers of images, for `check`.

    Raises:
        DataError, ProfileError: as `read_arrays`.
    """
    arrays = read_arrays(options)
    counts = [f"{name} {len(labels)}" for name, labels in arrays.labels.items()]
    carved = [f"{name} carved by seed" for name in DEFAULTS if name not in arrays.labels and getattr(options, f"{name}_fraction")]
    size = "×".join(map(str, arrays.shapes["train"][1:]))
    return f"{len(arrays.classes)} classes ({some(arrays.classes)}); images of {size}: {', '.join([*counts, *carved])}"


def _names(file: Path, present: list[str]) -> dict[str, tuple[str, str]]:
    """Images and labels of each split, as people call them."""
    found: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        ways = [(f"{split}_images", f"{split}_labels"), (f"{split}_x", f"{split}_y"), (f"x_{split}", f"y_{split}")]
        ways += [("images", "labels"), ("x", "y")] if split == "train" else []
        for images, labels in ways:
            if images in present and labels in present:
                found[split] = images, labels
                break
            if images in present or labels in present:
                there, gone = (images, labels) if images in present else (labels, images)
                raise DataError(f"`{file}` has `{there}`, but no `{gone}`")
    if "train" not in found:
        raise DataError(
            f"`{file}` has no training images: its arrays are {some(present)}", hint="expected: `train_images` and `train_labels`"
        )
    return found


def _shape(file: Path, name: str) -> tuple[int, ...]:
    """The shape of an array by its header, checked."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        read = np.lib.format.read_array_header_1_0 if np.lib.format.read_magic(member) == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] not in (1, 3)):
        raise DataError(f"`{name}` in `{file}` is {dtype} of shape {shape}: expected uint8 of (N, H, W) or (N, H, W, 1 or 3)")
    if shape[1] != shape[2]:
        raise DataError(f"the images in `{file}` are not square: {shape[1]}×{shape[2]} pixels", hint="crop or pad them")
    return tuple(shape)


def _labels(file: Path, name: str, labels: Any, count: int) -> Any:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        several = labels.ndim == 2 and labels.shape[0] == count
        hint = "one class for each image is expected, and not several" if several else ""
        raise DataError(f"`{name}` in `{file}` is {labels.dtype} of shape {labels.shape}: expected integers of ({count},)", hint=hint)
    if count and int(labels.min()) < 0:
        raise DataError(f"`{name}` in `{file}` has the label {labels.min()}: labels count from 0")
    return labels.astype(np.int64)


def _classes(file: Path, labels: Mapping[str, Any], names: list[str] | None) -> tuple[str, ...]:
    """Their names, or their numbers, of one width so that they sort as they count."""
    count = 1 + max((int(part.max()) for part in labels.values() if len(part)), default=-1)
    if names is not None and (len(names) < count or len(set(names)) < len(names)):
        raise DataError(f"`classes` in `{file}` has {len(set(names))} names, and labels go up to {count - 1}")
    if names is None:
        names = [f"{label:0{len(str(count - 1))}}" for label in range(count)]
    present = set(labels["train"].tolist())
    if absent := [name for label, name in enumerate(names) if label not in present]:
        raise DataError(f"`{file}` has no training image of {some(absent)}")
    if len(names) < 2:
        raise DataError(f"there is only one class in `{file}`")
    return tuple(names)
