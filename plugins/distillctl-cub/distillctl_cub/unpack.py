"""Finds the data set, and unpacks its `.tgz` so that nothing outside of one new folder is touched."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from distillctl import DataError, cache_folder
from distillctl_cub.listing import IMAGES

_NAME = "CUB_200_2011"
_ENDINGS = (".tgz", ".tar.gz", ".tar")


def find(root: Path) -> Path:
    """The folder with `images.txt`: `root` itself, one in it, or where `root` as an archive has been or is now unpacked.

    Raises:
        DataError: there is nothing of the kind, or the archive is broken or not to be trusted.
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
    """The folder that an archive was unpacked into, beside it or in the cache folder where that cannot be written."""
    stem = next((archive.name.removesuffix(e) for e in _ENDINGS if archive.name.endswith(e)), None)
    if stem is None:
        raise DataError(f"`{archive}` is neither a folder nor one of {', '.join(f'`{e}`' for e in _ENDINGS)}")
    places = [place for place in (archive.parent, cache_folder()) if place is not None]
    for place in places:
        if (place / stem / IMAGES).is_file():
            return place / stem
    for place in places:
        if _writable(place):
            return _unpack(archive, place / stem)
    raise DataError(f"`{archive}` cannot be unpacked: none of {', '.join(f'`{place}`' for place in places)} can be written")


def _unpack(archive: Path, target: Path) -> Path:
    """Unpacks into a temporary folder and renames: the target is there completely or not at all."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    content = temporary / "content"
    content.mkdir()  # with the usual permissions, unlike the folder around it
    try:
        _extract(archive, content)
        found = next((p for p in (content, *sorted(content.iterdir())) if (p / IMAGES).is_file()), None)
        if found is None:
            raise DataError(f"`{archive}` holds no `{IMAGES}`, so it is not CUB-200-2011")
        try:
            found.rename(target)
        except OSError:
            if not (target / IMAGES).is_file():  # otherwise another process was faster
                raise DataError(f"`{target}` is in the way of unpacking `{archive}`", hint="move it away") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _extract(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, "r:*") as tar:
            if hasattr(tarfile, "data_filter"):  # missing in Python 3.11.0 to 3.11.3; the checks below do not rely on it
                tar.extraction_filter = tarfile.data_filter
            for member in tar:
                _check_member(member, archive)
                tar.extract(member, folder)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"`{archive}` is broken or cut short: {error}", hint="download it again") from error
    except OSError as error:
        if error.errno is not None:  # disk full, no permission: not the archive's fault
            raise
        raise DataError(f"`{archive}` is broken or cut short: {error}", hint="download it again") from error


def _check_member(member: tarfile.TarInfo, archive: Path) -> None:
    """Only files and folders below the target: no link, no device, no way out."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or (path.parts and ":" in path.parts[0]):
        raise DataError(f"`{archive}` is not unpacked: its member `{member.name}` would leave the folder")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"`{archive}` is not unpacked: its member `{member.name}` is neither a file nor a folder")


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
