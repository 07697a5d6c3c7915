"""Builds the splits of `imagefolder` from what lies in the folder."""

from __future__ import annotations

import filecmp
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distillctl.api.class_folders import ClassFolders, scan_images
from distillctl.api.data import NO_LABEL, FileImages, Splits, View
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.builtin.imagefolder_tree import DEFAULTS, read_tree
from distillctl.data.splits import listing_hash, stratified_split, three_way_split
from distillctl.errors import DataError
from distillctl.text import counted

_SHARE = 0.5
"""Of a batch that is unlabelled where nobody says it."""
_HELD_OUT = 0.2
"""Share of each class of the labelled images that is asked for where no split says it."""


def build(options: ImageFolderOptions, seed: int) -> Splits:
    """The data set in `options.root`; parts that have no folder of their own are carved out of train by seed.

    Raises:
        DataError: the folder is missing, has no images, or its parts do not fit each other.
        ProfileError: a fraction is asked for where a folder decides.
    """
    tree = read_tree(options)
    folders, scans, classes = tree.folders, tree.scans, tree.classes
    files, labels = _flat(scans["train"], classes)
    if not classes:
        labels = torch.zeros(len(files), dtype=torch.int64)  # as one class
    fractions = (0.0 if "val" in scans else options.val_fraction, 0.0 if "test" in scans else options.test_fraction)
    kept, val, test = three_way_split(labels, *fractions, seed)
    parts = {"train": files.subset(kept), "val": files.subset(val), "test": files.subset(test)}
    parts |= {name: _flat(scan, classes)[0] for name, scan in scans.items() if name != "train"}
    for name, default in DEFAULTS.items():
        fraction = getattr(options, f"{name}_fraction")
        if not len(parts[name]) and fraction not in (0, default):
            whose = "no class" if classes else f"none of {counted(len(files), 'image')}"
            gives = "gives an image" if classes else "comes"
            raise DataError(f"`{name}_fraction = {fraction}` is so small that {whose} {gives} to the {name} split")
    if classes and len(torch.unique(parts["train"].labels)) < len(classes):
        raise DataError(f"nothing is left to train on for some classes of `{options.root}`", hint="lower `val_fraction` or `test_fraction`")
    labelled = _labelled(options, seed)
    held_out = {path.resolve() for name in ("val", "test") for path in parts[name].paths}
    more = [] if options.unlabelled is None else _unlabelled(options.unlabelled, held_out)
    parts["train"] = _joined(parts["train"], more)
    share = (options.unlabelled_share or _SHARE) if more else 0.0
    return Splits(
        train=parts["train"],
        val=parts["val"] if len(parts["val"]) else None,
        test=parts["test"] if len(parts["test"]) else None,
        classes=classes,
        mean=tuple(options.mean),
        std=tuple(options.std),
        view=_view(options),
        description=_description(options, folders, scans, parts)
        + ("" if labelled is None else _told(options, labelled))
        + (f"; {len(more)} of train without a label, from `{options.unlabelled}`: {share:g} of each batch" if more else ""),
        outputs=options.num_classes or 0,
        labelled=labelled,
        unlabelled_share=share,
    )


def _unlabelled(folder: Path, held_out: set[Path]) -> list[Path]:
    """More images to learn from."""
    if not folder.is_dir():
        raise DataError(f"there is no folder `{folder}`", hint="`dataset.unlabelled` names a folder of images, at any depth")
    found = scan_images(folder).images[""]
    if not found:
        raise DataError(f"there is no image in `{folder}`", hint="`dataset.unlabelled` names a folder of images, at any depth")
    if inside := [path for path in found if path.resolve() in held_out]:
        raise DataError(
            f"{counted(len(inside), 'image')} of `{folder}`, such as `{inside[0]}`, would be learnt from and are held out, too",
            hint="`dataset.unlabelled` names a folder without validation and test images",
        )
    return found


def _joined(labelled: FileImages, more: Sequence[Path]) -> FileImages:
    """Labelled images, and behind them others."""
    if not more:
        return labelled
    return FileImages([*labelled.paths, *more], torch.cat([labelled.labels, torch.full((len(more),), NO_LABEL)]))


def _labelled(options: ImageFolderOptions, seed: int) -> FileImages | None:
    """The labelled images beside, each with whether it is asked for."""
    if options.labelled is None:
        return None
    tree = read_tree(ImageFolderOptions(root=options.labelled))
    parts = {name: _flat(scan, tree.classes) for name, scan in tree.scans.items()}
    asked = next((name for name in ("test", "val") if name in parts), "")
    paths = [path for files, _ in parts.values() for path in files.paths]
    labels = torch.cat([labels for _, labels in parts.values()])
    wanted = torch.cat([torch.full_like(labels, name == asked) for name, (_, labels) in parts.items()])
    if not asked:
        _, carved = stratified_split(labels, _HELD_OUT, seed)
        wanted[carved] = 1
    if not wanted.any():
        raise DataError(f"no class of `{options.labelled}` has {round(1 / _HELD_OUT)} images, of which one could be held out")
    return FileImages(paths, labels, wanted)


def _told(options: ImageFolderOptions, labelled: FileImages) -> str:
    asked = int(labelled.targets.sum())
    return f"; labelled images of `{options.labelled}`: {asked} asked for by {len(labelled) - asked}"


def _flat(scan: ClassFolders, classes: tuple[str, ...]) -> tuple[FileImages, Tensor]:
    number = {name: label for label, name in enumerate(classes or [""])}
    pairs = [(path, number[name]) for name, files in scan.images.items() for path in files]
    labels = torch.tensor([label for _, label in pairs] if classes else [], dtype=torch.int64)
    return FileImages([path for path, _ in pairs], labels), labels


def _view(options: ImageFolderOptions) -> View:
    default = round(options.image_size * 8 / 7)
    return View(
        size=options.image_size,
        augment=options.augment,
        resize=options.resize or default,
        eval_resize=options.eval_resize or default,
        cache=options.cache,
        max_megapixels=options.max_megapixels,
        white=options.white,
        background=options.background,
    )


def _description(
    options: ImageFolderOptions, folders: Mapping[str, Path], scans: Mapping[str, ClassFolders], parts: Mapping[str, FileImages]
) -> str:
    sources = {name: folders[name].name if name in folders else "carved by seed" for name in ("val", "test")}
    sizes = f"train {len(parts['train'])}" + "".join(f", {n} {len(parts[n])} ({sources[n]})" for n in ("val", "test") if len(parts[n]))
    text = f"images of `{options.root}`: {sizes}"
    names = [f"{split} {unicodedata.normalize('NFC', _relative(p, options.root))}" for split, part in parts.items() for p in part.paths]
    if options.val_fraction and not len(parts["val"]):
        few = "no class has" if parts["train"].labels.numel() else "there are not"
        text += f"; no val: {few} enough images for a share of {options.val_fraction}"
    text += f"; listing {listing_hash(names)}"
    if ignored := sum((scan.ignored for scan in scans.values()), Counter()):
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(ignored.items()))
        text += f"; {counted(ignored.total(), 'file')} ignored ({kinds})"
    if pictures := [path for scan in scans.values() for path in scan.pictures]:
        text += f"; WARNING: {counted(len(pictures), 'picture')} ignored for the ending: `{_relative(pictures[0], options.root)}`"
    for name in ("val", "test"):
        if name in folders and (twice := _copies(folders["train"], folders[name], parts["train"].paths, parts[name].paths)):
            text += f"; WARNING: copies of training images in `{name}`: {twice}, so its figures are too good"
    return text


def _copies(train: Path, other: Path, train_paths: Sequence[Path], other_paths: Sequence[Path]) -> int:
    """How many files have the same place, name and content in both splits: copied instead of moved."""
    known = {_relative(p, train): p for p in train_paths}
    pairs = [(known[name], p) for p in other_paths if (name := _relative(p, other)) in known]
    return sum(filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
