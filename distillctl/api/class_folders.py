"""Finds the images of a folder tree: one folder for each class, images at any depth below it."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distillctl.errors import DataError, ProfileError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_NO_CLASSES = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that systems leave, beside those that are hidden."""
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_MOST_PICTURES = 1000


@dataclass
class ClassFolders:
    """The images below one folder.

    images: class → its files, both sorted.
    below: folder of each class, as it is called on the disk → the folders in it, both sorted.
    ignored: how many files of each kind are not images: hidden, with another ending, dead links.
    pictures: ignored files that begin as pictures do.
    """

    images: dict[str, list[Path]] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    pictures: list[Path] = field(default_factory=list)

    def ignore(self, entry: os.DirEntry[str]) -> None:
        """Counts a file that is not an image."""
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            self.ignored["hidden"] += 1
        elif not entry.is_file():
            self.ignored["dead links" if entry.is_symlink() else "special files"] += 1
        else:
            self.ignored[f"`{ending}`" if ending else "without an ending"] += 1
            if len(self.pictures) < _MOST_PICTURES and _begins_as_a_picture(entry.path):
                self.pictures.append(Path(entry.path))


def scan_classes(root: Path) -> ClassFolders:
    """Every folder in `root` is a class; hidden folders are not, and files beside them are ignored.

    Raises:
        DataError: a folder cannot be read, or two folders have the same name in different Unicode forms.
    """
    result = ClassFolders()
    for entry in _entries(root):
        if not entry.is_dir():
            result.ignore(entry)
        elif not _is_hidden(entry.name):
            name = class_name(entry.name)
            if name in result.images:
                raise DataError(f"two folders in `{root}` are both called `{name}`, in different Unicode forms")
            result.below[entry.name] = []
            result.images[name] = sorted(_images(Path(entry.path), result, (os.path.realpath(entry.path),)))
    result.images = dict(sorted(result.images.items()))
    return result


def scan_images(root: Path, without: Collection[Path] = ()) -> ClassFolders:
    """All images at any depth, as those of one class called ""; folders in `without` are left out, and so are hidden ones.

    Raises:
        DataError: a folder cannot be read.
    """
    result = ClassFolders(below={root.name: []})
    found = _images(root, result, (os.path.realpath(root),), {os.path.realpath(folder) for folder in without})
    result.images[""] = sorted(found)
    return result


def list_images(folder: Path) -> list[Path]:
    """The images in one folder, sorted by name; hidden files, other endings and folders are left out.

    Raises:
        DataError: the folder cannot be read.
    """
    return [folder / entry.name for entry in _entries(folder) if _is_image(entry)]


def class_name(folder: str) -> str:
    """The name as text that can be written anywhere: composed characters, bytes that are no UTF-8 replaced."""
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "replace"))


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root` that are not hidden, sorted."""
    return [e.name for e in _entries(root) if e.is_dir() and not _is_hidden(e.name)]


def has_images(folder: Path) -> bool:
    """Whether there is an image in the folder itself."""
    return any(_is_image(entry) for entry in _entries(folder))


def require_folder(root: Path) -> None:
    """Checks that there is such a folder.

    Raises:
        ProfileError: there is not; the hint names what is there with a similar name.
    """
    if root.is_dir():
        return
    if root.exists():
        arrays = root.suffix == ".npz"
        hint = 'images in arrays are another data set: `name = "npz"`' if arrays else "`root` must be a folder of folders of images"
        raise ProfileError(f"`{root}` is not a folder", where="[dataset]", hint=hint)
    existing = next((p for p in root.parents if p.is_dir()), Path("."))
    missing = root.relative_to(existing).parts[0] if existing in root.parents else root.name
    near = difflib.get_close_matches(missing, [n for n in _names(existing) if n != missing], 3, 0.5)
    shown = " or ".join(f"`{existing / name}`" for name in near)
    where = f"relative paths start at the current directory, `{Path.cwd()}`" if not root.is_absolute() else f"`{existing}` exists"
    raise ProfileError(f"there is no folder `{root}`", where="[dataset]", hint=f"did you mean {shown}?" if near else where)


def find_folder_or_archive(root: Path, name: str, endings: Sequence[str], holds: Callable[[Path], bool]) -> Path | None:
    """Where a data set lies: `root` if it is a file; the folder `root`, or `name` in it, if it `holds` the data; or an archive, packed.

    name: how the folder and, with one of the `endings`, the archive are called as they are downloaded; the latter lies in `root` or
    beside it. None: nowhere.
    """
    if root.is_file():
        return root
    folders = (folder for folder in (root, root / name) if holds(folder))
    archives = (path for place in (root, root.parent) for ending in endings if (path := place / f"{name}{ending}").is_file())
    return next(folders, None) or next(archives, None)


def _images(folder: Path, result: ClassFolders, above: tuple[str, ...], without: Collection[str] = ()) -> list[Path]:
    """The images in a folder and below; `above` holds the real paths of all folders on the way, to see loops of links.

    without: real paths of folders that are left out.
    """
    found: list[Path] = []
    for entry in _entries(folder):
        if entry.is_dir():
            if _is_hidden(entry.name):
                continue
            if len(above) == 1:
                result.below[folder.name].append(entry.name)
            real = os.path.realpath(entry.path)
            if real not in above and real not in without:
                found += _images(Path(entry.path), result, (*above, real), without)
        elif _is_image(entry):
            found.append(folder / entry.name)
        else:
            result.ignore(entry)
    return found


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder in _NO_CLASSES


def _begins_as_a_picture(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith(_BEGINNINGS)
    except OSError:
        return False


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
