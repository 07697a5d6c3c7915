"""Reads folders of images, `train/<class>/*.png` and `test/<class>/*.png`: lists them, decodes them in threads, caches the result."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distillctl import DataError, open_image, to_rgb
from distillctl_cifar.data import cache
from distillctl_cifar.data.arrays import SIDE, Arrays

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_DECODED = "transparency over white"  # how; another way makes other caches
_CHUNK = 500  # images in one task of a thread


@dataclass(frozen=True)
class Listing:
    """The files of one split, by class and then by name. `stamp` has a line with name, size and time for each."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor
    stamp: str


def read(name: str, root: Path, num_classes: int) -> Arrays:
    """Reads both splits, from the cache if the files are those it was made of.

    Raises:
        DataError: a split is missing, the classes are not as they should be, or an image is not 32×32 or cannot be decoded.
    """
    train, test = list_split(root / "train", num_classes), list_split(root / "test", num_classes)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise DataError(f"`train` and `test` in `{root}` have different classes: `{odd}` is in only one of them")
    fingerprint = hashlib.sha256(f"{_DECODED}\n{train.stamp}\n\n{test.stamp}".encode("utf-8", "surrogateescape")).hexdigest()
    file = cache.file_for(f"{name}-{fingerprint[:24]}")
    images = cache.load(file, (len(train.paths), len(test.paths))) if file else None
    if images is None:
        images = decode(train.paths), decode(test.paths)
        if file:
            cache.save(file, *images)
    return Arrays(images[0], train.labels, images[1], test.labels, train.classes, f"image folders in {root}")


def list_split(folder: Path, num_classes: int) -> Listing:
    """Lists one split. Classes are sorted by name, or by number if all names are numbers.

    Raises:
        DataError: the folder is missing or unreadable, has a wrong number of classes, or a class without images.
    """
    try:
        if not folder.is_dir():
            raise DataError(f"the folder `{folder}` is missing", hint="`root` needs both `train/<class>/*.png` and `test/<class>/*.png`")
        classes = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
        classes.sort(key=(lambda c: (int(c), c)) if all(c.isdecimal() for c in classes) else None)
        if len(classes) != num_classes:
            raise DataError(f"`{folder}` has {len(classes)} classes (folders) instead of {num_classes}")
        paths: list[Path] = []
        labels: list[int] = []
        stamp: list[str] = []
        for label, name in enumerate(classes):
            entries = sorted((e for e in os.scandir(folder / name) if _is_image(e)), key=lambda e: e.name)
            if not entries:
                raise DataError(f"there are no images in `{folder / name}`", hint="known endings: " + ", ".join(_ENDINGS))
            for entry in entries:
                status = entry.stat()
                paths.append(Path(entry.path))
                labels.append(label)
                stamp.append(f"{name}/{entry.name}\t{status.st_size}\t{status.st_mtime_ns}")
    except OSError as error:
        raise DataError(f"`{folder}` cannot be read: {error}") from error
    return Listing(tuple(classes), tuple(paths), torch.tensor(labels, dtype=torch.int64), "\n".join(stamp))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(_ENDINGS) and not entry.name.startswith(".") and entry.is_file()


def decode(paths: Sequence[Path]) -> Tensor:
    """Decodes images: uint8, (N, 32, 32, 3).

    Raises:
        DataError: one cannot be decoded or is of another size; of several, the first.
    """
    images = np.empty((len(paths), SIDE, SIDE, 3), dtype=np.uint8)

    def work(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(paths))):
            images[i] = _decode_one(paths[i])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        tasks = [pool.submit(work, start) for start in range(0, len(paths), _CHUNK)]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return torch.from_numpy(images)


def _decode_one(path: Path) -> npt.NDArray[np.uint8]:
    with open_image(path, max_megapixels=math.inf) as image:
        if image.size != (SIDE, SIDE):
            raise DataError(
                f"`{path}` has {image.size[0]}×{image.size[1]} pixels instead of {SIDE}×{SIDE}",
                hint="the data set `imagefolder` takes images of any size",
            )
        return np.asarray(to_rgb(image))
