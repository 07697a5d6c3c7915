"""Finds the data set, as a folder or as the archive that people download."""

from __future__ import annotations

from pathlib import Path

from distillctl import ProfileError, find_folder_or_archive
from distillctl_cub.listing import IMAGES
from distillctl_cub.options import CUBOptions

_NAME = "CUB_200_2011"
_ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip")
_MAX_BYTES = 16 << 30  # the published archive holds 1.2 GB
_MAX_FILES = 100_000  # and 12,000 files


def find(root: Path) -> Path:
    """The folder with `images.txt`: `root` itself, one in it, or where `root` as an archive has been or is now unpacked.

    Raises:
        ProfileError: there is nothing of the kind.
        DataError: the archive is broken or not to be trusted.
        MachineError: there is no place to unpack it.
    """
    place = locate(root)
    return place if place.is_dir() else _unpacked(place)


def locate(root: Path) -> Path:
    """As `find`, but an archive stays packed.

    Raises:
        ProfileError: there is nothing of the kind.
    """
    if found := find_folder_or_archive(root, _NAME, _ENDINGS, lambda folder: (folder / IMAGES).is_file()):
        return found
    raise ProfileError(
        f"CUB-200-2011 is not in `{root}`: there is no `{IMAGES}`" if root.is_dir() else f"there is no folder or archive `{root}`",
        where="[dataset]",
        hint=f"download `{_NAME}.tgz` from https://www.vision.caltech.edu/datasets/cub_200_2011/ and set `dataset.root` to it",
    )


def preview(options: CUBOptions) -> str:
    """Where the data set lies.

    Raises:
        ProfileError: nowhere.
    """
    return f"CUB-200-2011 in `{locate(options.root)}`"


def _unpacked(archive: Path) -> Path:
    from distillctl import unpacked  # imports torch, which `check` does without

    return unpacked(archive, containing=IMAGES, max_bytes=_MAX_BYTES, max_files=_MAX_FILES)
