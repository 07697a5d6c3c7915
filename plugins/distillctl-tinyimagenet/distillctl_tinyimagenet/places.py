"""Where Tiny-ImageNet may lie, as a folder or as the archive that people download; looked for without torch."""

from __future__ import annotations

from pathlib import Path

from distillctl import ProfileError, find_folder_or_archive
from distillctl_tinyimagenet.options import TinyImageNetOptions

IDS = "wnids.txt"
_NAME = "tiny-imagenet-200"
_MAX_BYTES = 4 << 30  # the published archive holds 0.3 GB
_MAX_FILES = 400_000  # and 121,000 files and folders


def find(root: Path) -> Path:
    """The folder with `train` and `val`: `root` itself, one in it, or where `root` as an archive has been or is now unpacked.

    Raises:
        ProfileError: there is nothing of the kind.
        DataError: the archive is broken or not to be trusted.
        MachineError: there is no place to unpack it.
    """
    place = locate(root)
    if place.is_dir():
        return place
    from distillctl import unpacked  # imports torch, which `check` does without

    return unpacked(place, containing=IDS, name=_NAME, max_bytes=_MAX_BYTES, max_files=_MAX_FILES)


def locate(root: Path) -> Path:
    """As `find`, but an archive stays packed.

    Raises:
        ProfileError: there is nothing of the kind.
    """
    if found := find_folder_or_archive(root, _NAME, [".zip"], lambda folder: (folder / "train").is_dir()):
        return found
    raise ProfileError(
        f"Tiny-ImageNet is not in `{root}`: there is no folder `train`" if root.is_dir() else f"there is no folder or archive `{root}`",
        where="[dataset]",
        hint=f"download `{_NAME}.zip` from http://cs231n.stanford.edu/{_NAME}.zip and set `dataset.root` to it",
    )


def preview(options: TinyImageNetOptions) -> str:
    """Where the data set lies.

    Raises:
        ProfileError: nowhere.
    """
    return f"Tiny-ImageNet in `{locate(options.root)}`"
