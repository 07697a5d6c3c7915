"""Which image files somebody means who names files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from distillctl.api.class_folders import EXTENSIONS, scan_images
from distillctl.errors import Problem, ProfileError
from distillctl.profile.problems import no_file
from distillctl.text import natural_key, some

_MAGIC = frozenset("*?[")


def image_paths(names: Iterable[str], where: str = "") -> list[str]:
    """The files that are meant, in the order of `names`; those of one name are sorted as people count (`2.jpg` before `10.jpg`).

    names: a file, whatever its ending; a folder, for the images at any depth in it; or a pattern (`*`, `?`, `[…]`, `**` for any depth),
        for the images that it matches and those in folders that it matches. Hidden files and folders are left out.
    where: what problems say of their place.

    Raises:
        ProfileError: a file is missing, a folder has no images, or a pattern matches none; all of these are told at once.
        DataError: a folder cannot be read.
    """
    found: list[str] = []
    problems: list[Problem] = []
    for name in names:
        try:
            found += _named(name)
        except ProfileError as error:
            problems += [Problem(one.message, where, one.hint) for one in error.problems]
    if problems:
        raise ProfileError(problems)
    return found


def listed_paths(names: Iterable[str], where: str = "") -> list[str]:
    """The files in a list that a program wrote: as `image_paths`, but nothing is a pattern, and what is missing is told when it is read.

    Raises:
        ProfileError: a folder has no images.
        DataError: a folder cannot be read.
    """
    return [path for name in names for path in (image_paths([name], where) if os.path.isdir(name) else [name])]


def _named(name: str) -> list[str]:
    if os.path.isdir(name):
        return _in_folder(name)
    if os.path.isfile(name):
        return [name]
    if _MAGIC & set(name) and not os.path.lexists(name):
        return _matched(name)
    message, hint = no_file(Path(name))
    raise ProfileError(message, hint=hint)


def _in_folder(name: str) -> list[str]:
    found = scan_images(Path(name))
    if found.images[""]:
        return _sorted(map(str, found.images[""]))
    if found.pictures:
        named = some([str(path) for path in found.pictures])
        hint = f"images are known by their ending; others must be named themselves, such as {named}"
    else:
        others = ", ".join(f"{kind} {number:,}" for kind, number in found.ignored.most_common(3))
        hint = f"what lies there is not taken for images: {others}" if others else "it is empty"
    raise ProfileError(f"there are no images in the folder `{name}`", hint=hint)


def _matched(pattern: str) -> list[str]:
    """Files that a pattern matches; an ending that it states may be any."""
    ending = os.path.splitext(pattern)[1]
    stated = bool(ending) and not _MAGIC & set(ending)
    matched = glob.glob(pattern, recursive=True)
    files = [path for path in matched if os.path.isfile(path) and (stated or os.path.splitext(path)[1].lower() in EXTENSIONS)]
    if "**" not in pattern:  # which matches the files in its folders itself
        files += [str(path) for folder in matched if os.path.isdir(folder) for path in scan_images(Path(folder)).images[""]]
    if files:
        return _sorted(files)
    if matched:
        raise ProfileError(f"`{pattern}` matches {some(_sorted(matched))}, and no image among them")
    above = os.path.dirname(pattern[: min(pattern.index(sign) for sign in _MAGIC & set(pattern))]) or "."
    hint = f"the folder `{above}` does not exist" if not os.path.isdir(above) else "`**/*.jpg` matches at any depth, `*.jpg` in one folder"
    raise ProfileError(f"the pattern `{pattern}` matches nothing", hint=hint)


def _sorted(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=natural_key)
