"""What lies in an image folder: splits, classes and files, checked, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillctl.api.class_folders import EXTENSIONS, ClassFolders, has_images, scan_classes, scan_images
from distillctl.builtin.imagefolder_layout import NO_LABELS, refuse_nested_splits, split_folders, unlabelled_folders, wrapped
from distillctl.builtin.imagefolder_list import read_list
from distillctl.builtin.imagefolder_options import VAL_FRACTION, ImageFolderOptions
from distillctl.errors import DataError, ProfileError
from distillctl.text import counted, natural_key, some

DEFAULTS = {"val": VAL_FRACTION, "test": 0.0}
"""Shares that are carved where nobody says otherwise."""


@dataclass(frozen=True)
class Tree:
    """folders, scans: of each split that has a folder, or rows in the file of labels, as `train` always has.

    classes: in the order of their labels; empty where images have none.
    """

    folders: Mapping[str, Path]
    scans: Mapping[str, ClassFolders]
    classes: tuple[str, ...]


def read_tree(options: ImageFolderOptions) -> Tree:
    """The folders with the names of their files, or what the file of labels says.

    Raises:
        DataError: the folder is missing, has no images, or its parts do not fit each other.
        ProfileError: a fraction is asked for where a folder decides, or `class_order` names other classes.
    """
    if options.labels is False:
        folders = unlabelled_folders(options)
        _check_fractions(options, folders)
        scans = {name: scan_images(folder, [f for f in folders.values() if f != folder]) for name, folder in folders.items()}
        if empty := [folder for name, folder in folders.items() if not scans[name].images[""]]:
            raise DataError(f"there is no image in `{empty[0]}`", hint=f"with an ending of {', '.join(sorted(EXTENSIONS))}")
        return Tree(folders, scans, ())
    if options.labels is not None:
        folders, scans = read_list(options)
        _check_fractions(options, folders)
        return Tree(folders, scans, _in_order(_check_classes(scans, folders), options))
    folders = split_folders(options)
    _check_fractions(options, folders)
    scans = {name: scan_classes(folder) for name, folder in folders.items()}
    if options.train is None:
        refuse_nested_splits(folders["train"], scans["train"].below)
    return Tree(folders, scans, _in_order(_check_classes(scans, folders), options))


def preview(options: ImageFolderOptions) -> str:
    """Classes and numbers of images, for `check`.

    Raises:
        DataError, ProfileError: as `read_tree`.
    """
    tree = read_tree(options)
    counts = ", ".join(f"{name} {sum(map(len, scan.images.values()))}" for name, scan in tree.scans.items())
    carved = [f"{name} carved by seed" for name in DEFAULTS if name not in tree.scans and getattr(options, f"{name}_fraction")]
    classes = f"{len(tree.classes)} classes ({some(list(tree.classes))})" if tree.classes else "no labels"
    return f"{classes}; images: {', '.join([counts, *carved])}"


def _check_fractions(options: ImageFolderOptions, folders: Mapping[str, Path]) -> None:
    for name, default in DEFAULTS.items():
        if name in folders and getattr(options, f"{name}_fraction") != default:
            raise ProfileError(f"`{name}_fraction` has no effect: `{folders[name]}` is the {name} split", where="[dataset]")


def _check_classes(scans: Mapping[str, ClassFolders], folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The classes of train, once everything fits."""
    train, root = scans["train"].images, folders["train"]
    if not any(train.values()):
        raise DataError(
            f"there is no image in the class folders of `{root}`" if train else f"there is no class folder in `{root}`",
            hint=f"expected: `{root}/CLASS/IMAGE`, with an ending of {', '.join(sorted(EXTENSIONS))}"
            + (NO_LABELS if root.is_dir() and has_images(root) else ""),
        )
    if empty := [name for name, files in train.items() if not files]:
        raise DataError(
            f"{counted(len(empty), 'class', 'es')} of `{root}` without an image: {some(empty)}", hint="remove the folder or fill it"
        )
    if len(train) < 2:
        deeper = wrapped(root) if root.is_dir() else None
        hint = "" if deeper in (None, root) else _ways_down(deeper, folders)
        raise DataError(f"there is only one class in `{root}`: {some(list(train))}", hint=hint)
    for name in ("val", "test"):
        if name in scans:
            if unknown := sorted(set(scans[name].images) - set(train)):
                known = {one.casefold().strip(): one for one in train}
                alike = [f"`{one}` for `{known[one.casefold().strip()]}`" for one in unknown if one.casefold().strip() in known]
                raise DataError(
                    f"{counted(len(unknown), 'class', 'es')} of `{folders[name]}` that `{root}` lacks: {some(unknown)}",
                    hint=f"rename it: {alike[0]}" if alike else f'move it away; `dataset.{name} = ""` leaves out the split',
                )
            if not any(scans[name].images.values()):
                raise DataError(f"there is no image in the class folders of `{folders[name]}`", hint="remove the folder or fill it")
    return tuple(train)


def _ways_down(deeper: Path, folders: Mapping[str, Path]) -> str:
    """What to name where the classes lie deeper: the root, or the folder of each split."""
    if len(folders) == 1:
        return f"`{deeper}` has several folders: name that one"
    inner = {name: (wrapped(folder) or folder).relative_to(folder.parent).as_posix() for name, folder in folders.items()}
    return "state them in [dataset]: " + ", ".join(f'`{name} = "{place}"`' for name, place in inner.items())


def _in_order(classes: tuple[str, ...], options: ImageFolderOptions) -> tuple[str, ...]:
    order = options.class_order
    if order == "natural":
        return tuple(sorted(classes, key=natural_key))
    if order is None:
        return classes
    if wrong := sorted({*order} ^ {*classes}) or [name for name in order if order.count(name) > 1]:
        raise ProfileError(
            f"`class_order` must name each of the {len(classes)} classes once; it is wrong about {some(wrong)}", where="[dataset]"
        )
    return tuple(order)
