"""`cache = "ram"` or `"disk"`: image files decoded and resized once, as uint8 pixels from which views are cut.

What is kept is the image after the first step of its view, the resize of its short side, which is always the same; the random
crop and all that follows are drawn anew. So a view has the same bits with and without a cache. Views whose first step is a random
crop of the image as it lies in its file have no such step, and no cache.

A file of the cache holds the pixels of all images of a split, (H, W, 3) one after the other, then the index, then its checksum.
It is named after the places, sizes and times of the image files and whatever else its pixels depend on, and appears under its name
when it is complete.
"""

from __future__ import annotations

import os
import struct
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl.api.data import FileImages, StoredImages, View
from distillctl.data.batches import Workers
from distillctl.data.decode import read_image
from distillctl.data.inspection import files_digest
from distillctl.data.workers import decoded, no_advice
from distillctl.errors import DataError, MachineError, Problem
from distillctl.files import FULL_OR_CLOSED, cache_folder, write_atomically

_VERSION = 1
_MAGIC = b"distillctl images 1\n"
_TRAILER = struct.Struct(f"<QI{len(_MAGIC)}s")  # number of images, checksum of the index, magic
_STALE = 86_400  # seconds after which a file that nobody finished is taken for left over
_CPU = torch.device("cpu")


class Store(Protocol):
    """Images by their position: uint8, (3, H, W)."""

    def __getitem__(self, index: int) -> Tensor: ...


_IN_MEMORY: dict[tuple[int, str], Store] = {}
"""By the images and what was made of them, as long as the images are there."""


def stored(images: FileImages | StoredImages, view: View, short: int, workers: Workers) -> Store | None:
    """The images with their short side resized to `short` pixels, from memory or disk as `view.cache` says; made if they are not there yet.

    Returns:
        None if `view.cache` is `none`.

    Raises:
        DataError: a file is missing or broken.
        MachineError: there is no space, or no folder for caches.
        RunError: a worker process died.
    """
    if view.cache == "none" or not len(images):
        return None
    assert isinstance(images, FileImages), "stored images have no option `cache`"
    if view.cache == "disk":
        return _on_disk(images, view, short, workers)
    key = (id(images), f"{short} {view.reading}")
    if key not in _IN_MEMORY:
        _IN_MEMORY[key] = _InMemory([pixels.copy() for pixels in _resized(images, view, short, workers)])
        weakref.finalize(images, _IN_MEMORY.pop, key, None)
    return _IN_MEMORY[key]


class _InMemory:
    """Forked workers share the pixels; others get a copy each."""

    def __init__(self, pixels: list[Any]) -> None:
        self._pixels = pixels

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self._pixels[index]).permute(2, 0, 1)


class OnDisk:
    """The images in a file of the cache, mapped into memory; another process maps it itself.

    Raises:
        ValueError: it is not such a file, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _TRAILER.size))
            trailer = file.read()
            if len(trailer) != _TRAILER.size or not trailer.endswith(_MAGIC):
                raise ValueError("it has no end")
            count, checksum, _ = _TRAILER.unpack(trailer)
            start = size - _TRAILER.size - 16 * count  # of the index
            if start < 0:
                raise ValueError("it is too short")
            file.seek(start)
            index = file.read(16 * count)
        if zlib.crc32(index) != checksum:
            raise ValueError("its index is damaged")
        rows = np.frombuffer(index, "<i8").reshape(count, 2)  # height, width
        self._sizes: list[tuple[int, int]] = [(int(h), int(w)) for h, w in rows]
        self._ends = np.cumsum(3 * rows[:, 0] * rows[:, 1])
        if min((side for pair in self._sizes for side in pair), default=1) < 1 or (count and int(self._ends[-1]) != start):
            raise ValueError("its pixels are not whole")
        self._map = np.memmap(path, np.uint8, "c") if start else np.empty(0, np.uint8)  # writable for torch; nothing is written

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Tensor:
        height, width = self._sizes[index]
        end = int(self._ends[index])
        return torch.from_numpy(self._map[end - 3 * height * width : end].reshape(height, width, 3)).permute(2, 0, 1)

    def __reduce__(self) -> tuple[type[OnDisk], tuple[Path]]:
        return OnDisk, (self._path,)


def _on_disk(images: FileImages, view: View, short: int, workers: Workers) -> Store:
    folder = cache_folder()
    if folder is None:
        raise MachineError('there is no folder for `cache = "disk"`', hint="`DISTILLCTL_CACHE` names one")
    made_by = [torch.__version__, *(version(name) for name in ("torchvision", "pillow"))]  # whose pixels they are
    made = [_VERSION, short, view.reading, made_by] + ([] if images.boxes is None else [images.parts])
    path = folder / "resized" / f"{files_digest(made, {'': images.paths})}.images"
    if (found := _opened(path, len(images))) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        write_atomically(path, lambda temporary: _write(temporary, _resized(images, view, short, workers)))
        return OnDisk(path)
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise MachineError(
            f"the cache of resized images in `{path.parent}` cannot be written: {error.strerror}",
            hint='`DISTILLCTL_CACHE` names another folder; `dataset.cache = "none"` needs none',
        ) from error


def _opened(path: Path, count: int) -> OnDisk | None:
    """What lies there, if it is whole."""
    with suppress(OSError, ValueError):
        found = OnDisk(path)
        if len(found) == count:
            return found
    return None


def _write(path: Path, pixels: Iterator[Any]) -> None:
    sizes: list[tuple[int, int]] = []
    with path.open("wb") as file:
        for image in pixels:
            file.write(image.data)
            sizes.append(image.shape[:2])
        _write_index(file, sizes)


def _write_index(file: BinaryIO, sizes: Sequence[tuple[int, int]]) -> None:
    index = np.array(sizes, "<i8").reshape(-1, 2).tobytes()
    file.write(index)
    file.write(_TRAILER.pack(len(sizes), zlib.crc32(index), _MAGIC))


def _sweep(folder: Path) -> None:
    """Removes what processes that were killed have left half written."""
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                os.unlink(left)


def _resized(images: FileImages, view: View, short: int, workers: Workers) -> Iterator[Any]:
    """Every image as an array (H, W, 3), from worker processes.

    Raises:
        DataError: a file is missing or broken.
    """
    for pixels in decoded(_Files(images, view, short), len(images), workers, _CPU):
        if isinstance(pixels, Problem):
            raise DataError(pixels)
        yield pixels


class _Files(Dataset[Any]):
    def __init__(self, images: FileImages, view: View, short: int) -> None:
        self._paths, self._boxes = [str(path) for path in images.paths], images.parts
        self._view, self._resize = view, v2.Resize(short, antialias=True)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        try:
            with no_advice():
                box = None if self._boxes is None else self._boxes[index]
                image = self._resize(read_image(self._paths[index], **self._view.reading, box=box))
        except DataError as error:
            return error.problems[0]
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
