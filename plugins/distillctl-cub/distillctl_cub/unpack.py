"""Finds the data set, as a folder or as the archive that people download."""

from __future__ import annotations

from pathlib import Path

from distillctl import DataError, unpacked
from distillctl_cub.listing import IMAGES

_NAME = "CUB_200_2011"
_ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip")
_MAX_BYTES = 16 << 30  # the published archive holds 1.2 GB
_MAX_FILES = 100_000  # and 12,000 files


def find(root: Path) -> Path:
    """The folder with `images.txt`: `root` itself, one in it, or where `root` as an archive has been or is now unpacked.

    Raises:
        DataError: there is nothing of the kind, or the archive is broken or not to be trusted.
        MachineError: there is no place to unpack it.
    """
    if root.is_file():
        return _unpacked(root)
    for folder in (root, root / _NAME):
        if (folder / IMAGES).is_file():
            return folder
    archives = [folder / f"{_NAME}{ending}" for folder in (root, root.parent) for ending in _ENDINGS]
    for archive in archives:
        if archive.is_file():
            return _unpacked(archive)
    raise DataError(
        f"CUB-200-2011 is not in `{root}`: there is no `{IMAGES}`" if root.is_dir() else f"there is no folder or archive `{root}`",
        hint=f"download `{_NAME}.tgz` from https://www.vision.caltech.edu/datasets/cub_200_2011/ and set `dataset.root` to it",
    )


def _unpacked(archive: Path) -> Path:
    return unpacked(archive, containing=IMAGES, max_bytes=_MAX_BYTES, max_files=_MAX_FILES)
