"""Finds the images of a folder tree: one folder for each class, images at any depth below it."""

from __future__ import annotations

import difflib
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from distillctl.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass
class ClassFolders:
    """The images below one folder.

    images: class → its files, both sorted.
    ignored: files that are hidden, are no images by their ending, or lead nowhere.
    """

    images: dict[str, list[Path]] = field(default_factory=dict)
    ignored: int = 0


def scan_classes(root: Path) -> ClassFolders:
    """Every folder in `root` is a class; hidden folders are not, and files beside them are ignored.

    Raises:
        DataError: a folder cannot be read, or two folders have the same name in different Unicode forms.
    """
    result = ClassFolders()
    for entry in _entries(root):
        if not entry.is_dir():
            result.ignored += 1
        elif not entry.name.startswith("."):
            name = class_name(entry.name)
            if name in result.images:
                raise DataError(f"two folders in `{root}` are both called `{name}`, in different Unicode forms")
            result.images[name] = sorted(_images(Path(entry.path), result, (os.path.realpath(entry.path),)))
    result.images = dict(sorted(result.images.items()))
    return result


def class_name(folder: str) -> str:
    """The name as text that can be written anywhere: composed characters, bytes that are no UTF-8 replaced."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "replace"))


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root` that are not hidden, sorted."""
    return [e.name for e in _entries(root) if e.is_dir() and not e.name.startswith(".")]


def require_folder(root: Path) -> None:
    """Checks that there is such a folder.

    Raises:
        DataError: there is not; the hint names what is there with a similar name.
    """
    if root.is_dir():
        return
    if root.exists():
        raise DataError(f"`{root}` is not a folder", hint="`root` must be a folder of folders of images")
    existing = next((p for p in root.parents if p.is_dir()), Path("."))
    missing = root.relative_to(existing).parts[0] if existing in root.parents else root.name
    near = difflib.get_close_matches(missing, [n for n in _names(existing) if n != missing], 3, 0.5)
    shown = " or ".join(f"`{existing / name}`" for name in near)
    where = f"relative paths start at the current directory, `{Path.cwd()}`" if not root.is_absolute() else f"`{existing}` exists"
    raise DataError(f"there is no folder `{root}`", hint=f"did you mean {shown}?" if near else where)


def _images(folder: Path, result: ClassFolders, above: tuple[str, ...]) -> list[Path]:
    """The images in a folder and below; `above` holds the real paths of all folders on the way, to see loops of links."""
    found: list[Path] = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            result.ignored += not entry.is_dir()
        elif entry.is_dir():
            real = os.path.realpath(entry.path)
            if real not in above:
                found += _images(Path(entry.path), result, (*above, real))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file():
            found.append(Path(entry.path))
        else:
            result.ignored += 1
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"the folder `{folder}` cannot be read: {error.strerror}") from error


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
