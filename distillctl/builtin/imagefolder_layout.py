"""Finds which folders of an image folder are its splits, and refuses a tree whose folders are no classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from distillctl.api.class_folders import has_images, require_folder, subfolders
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.errors import DataError
from distillctl.text import some

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of folders, in any case, that are taken as splits."""

NO_LABELS = "; `dataset.labels = false` learns from a teacher without labels"
"""What else can be done with images that lie in no class folders."""

# Words of names that look like splits, and words that say nothing beside them: `seg_train`, `test-images`, `TrainingSet`.
_SPLIT_WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "holdout"),
    "test": ("test", "testing", "tst", "pred", "predict", "prediction", "predictions", "inference", "unlabeled", "unlabelled"),
}
_NUMBERED = ("fold", "folds", "split", "part", "partition", "subset", "cv")
_CONTAINERS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "jpegimages", "data", "dataset"),
    *("annotation", "annotations", "label", "labels", "mask", "masks", "segmentation", "segmentations"),
}
_SAYS_NOTHING = {
    *_CONTAINERS,
    *("set", "sets", "seg", "split", "folder", "dir", "files", "new", "final", "full", "all", "raw", "small", "jpg", "png"),
}
_BESIDE = {"", *_SAYS_NOTHING}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def split_folders(options: ImageFolderOptions) -> dict[str, Path]:
    """Folder of each split that has one: as the options state it, or else as it is called.

    Without a `train` of class folders, `root` itself is the training set.

    Raises:
        DataError: a folder is missing, or the folders look like something else than classes.
    """
    root = options.root
    require_folder(root)
    stated = {name: value for name in SPLITS if (value := getattr(options, name)) is not None}
    found = {"train": root} if stated.get("train") == "." else _found_by_name(root, stated)
    for name, value in stated.items():
        found.pop(name, None)
        if value:
            require_folder(root / value)
            found[name] = root / value
    if "train" not in stated:
        _refuse_other_splits(root, found, stated)
    return {name: found[name] for name in SPLITS if name in found}


def unlabelled_folders(options: ImageFolderOptions) -> dict[str, Path]:
    """Folder of each split that has one, where folders are no classes: as the options state it, or else as it is called.

    Without a `train`, `root` itself is the training set, but for the folders of other splits in it.

    Raises:
        DataError: a folder is missing, or one that is not a split looks like one.
    """
    root = options.root
    require_folder(root)
    stated = {name: value for name in SPLITS if (value := getattr(options, name)) is not None}
    present, found = subfolders(root), {}
    for split, names in SPLITS.items():
        if split in stated:
            if stated[split]:
                require_folder(root / stated[split])
                found[split] = root / stated[split]
            continue
        called = [name for name in present if name.lower() in names]
        if len(called) > 1:
            raise DataError(f"`{root}` has both `{called[0]}` and `{called[1]}`", hint=f"only one of them can be the {split} split")
        if called and stated.get("train") != ".":
            found[split] = root / called[0]
    if "train" not in stated:
        looking = [(name, kind) for name in present if root / name not in found.values() and (kind := _split_of(_words(name)))]
        others = [(name, kind) for name, kind in looking if kind not in found and kind not in stated and "unlabel" not in name.lower()]
        if others:
            name, kind = others[0]
            raise DataError(
                f"`{name}` in `{root}` looks like a split",
                hint=f'`dataset.{kind} = "{name}"` takes it as the {kind} split; `dataset.train = "."` trains on all images below `root`',
            )
    return {"train": root} | {name: found[name] for name in SPLITS if name in found}


def _found_by_name(root: Path, stated: Mapping[str, str]) -> dict[str, Path]:
    present = subfolders(root)
    found: dict[str, Path] = {}
    flat: list[tuple[str, str]] = []
    for split, names in SPLITS.items():
        if split in stated:
            continue
        called = [n for n in present if n.lower() in names]
        several = [n for n in called if subfolders(root / n)]
        if len(several) > 1:
            raise DataError(f"`{root}` has both `{several[0]}` and `{several[1]}`", hint=f"only one of them can be the {split} split")
        if several:
            found[split] = root / several[0]
        flat += [(split, n) for n in called if n not in several]
    has_train = "train" in found or "train" in stated
    if found and not has_train and not any(_split_of(_words(n)) == "train" for n in present):
        raise DataError(f"`{root}` has a folder `{next(iter(found.values())).name}` of classes, but no folder `train` of classes")
    if flat and has_train:
        split, name = flat[0]
        flat_images = has_images(root / name)
        what = "has images but no class folders" if flat_images else "has no images"
        raise DataError(
            f"`{name}` in `{root}` {what}, so it cannot be the {split} split",
            hint=f'sort its images into `{name}/CLASS/`, or state `dataset.{split} = ""` to leave it out'
            + (NO_LABELS if flat_images else ""),
        )
    if present and not found and "train" not in stated and all(any(n.lower() in names for names in SPLITS.values()) for n in present):
        shown = " and ".join(f"`{n}`" for n in present)
        raise DataError(
            f"{shown} in `{root}` {'has' if len(present) == 1 else 'have'} no class folders",
            hint="expected: `train/CLASS/IMAGE`" + (NO_LABELS if any(has_images(root / n) for n in present) else ""),
        )
    return found if has_train else {"train": root}


def _refuse_other_splits(root: Path, found: Mapping[str, Path], stated: Mapping[str, str]) -> None:
    """Refuses folders that look like splits and would become classes, or would be left out."""
    present = subfolders(root)
    if found["train"] != root:
        if others := [n for n in present if root / n not in found.values() and _split_of(_words(n)) not in ("", *stated)]:
            free = [name for name in ("val", "test") if name not in found]
            ways = [f'`dataset.{name} = "{others[0]}"` takes it as the {name} split' for name in free]
            ways.append(f'`dataset.train = "{found["train"].name}"` leaves out what is not named')
            raise DataError(f"`{others[0]}` in `{root}` looks like a split, too", hint="; ".join(ways))
        return
    if _are_splits(present):
        raise DataError(
            f"the folders of `{root}` look like splits, and not like classes: {some(present)}", hint=_ways_to_name(root, present)
        )
    if _are_splits_of_classes(present):
        raise DataError(
            f"the folders of `{root}` look like the classes of several splits: {some(present)}",
            hint='expected: `train/CLASS/IMAGE`; `dataset.train = "."` says that these are the classes',
        )


def refuse_nested_splits(root: Path, below: Mapping[str, list[str]]) -> None:
    """Refuses class folders with splits or with the same classes in each of them. below: each class folder → the folders in it.

    Raises:
        DataError: with what to do.
    """
    inside = [names for names in below.values() if names]
    if len(below) < 2 or not inside:
        return
    kinds = [{kind for n in names if (kind := _split_of(_words(n)))} for names in inside]
    if (len(inside) == len(below) and all(kinds)) or any(len(found) > 1 for found in kinds):
        example = next(name for name, names in below.items() if any(_split_of(_words(n)) for n in names))
        raise DataError(
            f"the class folders of `{root}` hold splits: {some([f'{example}/{n}' for n in below[example]])}",
            hint=f'expected: `train/{example}/IMAGE`; `dataset.train = "."` trains on all images below each class',
        )
    if len(inside) == len(below) and len(inside[0]) > 1 and all(names == inside[0] for names in inside):
        raise DataError(
            f"each folder of `{root}` has the same folders: {some(list(below))} have {some(inside[0])}",
            hint=f'if {some(inside[0])} are the classes, name a folder of them: `dataset.root = "{root / next(iter(below))}"`; '
            'if not, `dataset.train = "."` says that the upper ones are',
        )

    for name, names in below.items():
        if len(names) > 1 and set(names) <= below.keys() - {name}:
            raise DataError(
                f"`{name}` in `{root}` has folders of the classes beside it: {some(names)}",
                hint="move their images into those of the classes, or the folder away; "
                f'`dataset.train = "."` says that `{name}` is a class of its own',
            )


def split_of_name(name: str) -> str:
    """`train`, `val` or `test` if a word says that; otherwise empty."""
    return _split_of(_words(name))


def wrapped(root: Path) -> Path | None:
    """The first folder below with more than one folder in it, if each on the way has only one; None if there is none."""
    for _ in range(8):
        inside = subfolders(root)
        if len(inside) > 1:
            return root
        if not inside:
            return None
        root /= inside[0]
    return None


def _are_splits(names: list[str]) -> bool:
    """Whether folders beside each other look like splits or other parts of a data set, and none like a class."""
    words, kinds = [_words(name) for name in names], _splits_of(names)
    if len(names) > 1 and all(_is_numbered(found) for found in words):
        return True
    parts = [kind or _is_container(found) for kind, found in zip(kinds, words, strict=True)]
    return bool(names) and all(parts) and (any(kinds) or len(names) > 1)


def _are_splits_of_classes(names: list[str]) -> bool:
    """Whether each folder is called by a split and a class, and some class has several: `train_cat` beside `test_cat`."""
    found: dict[str, set[str]] = {}
    for words in map(_words, names):
        first, last = (_split_of_word(words[at]) if len(words) > 1 else "" for at in (0, -1))
        if not (first or last):
            return False
        found.setdefault(" ".join(words[1:] if first else words[:-1]), set()).add(first or last)
    return any(len(splits) > 1 for splits in found.values())


def _splits_of(names: list[str]) -> list[str]:
    """Which split each of the folders beside each other looks like; empty for none."""
    words = [_words(name) for name in names]
    common = set.intersection(*map(set, words)) if len(words) > 1 else set()  # `intel_train` beside `intel_test`
    return [_split_of(found) or _split_of([w for w in found if w not in common]) for found in words]


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _split_of(words: list[str]) -> str:
    """`train`, `val` or `test` if a name says that and nothing else."""
    telling = [w for w in words if w not in _SAYS_NOTHING and not w.isdigit()]
    if telling == ["hold", "out"]:
        return "val"
    return _split_of_word(telling[0]) if len(telling) == 1 else ""


def _split_of_word(word: str) -> str:
    """As above for one word, which may be written together with another: `trainset`."""
    for split, known in _SPLIT_WORDS.items():
        if any(word.startswith(k) and word[len(k) :] in _BESIDE for k in known):
            return split
    return ""


def _is_numbered(words: list[str]) -> bool:
    return len(words) > 1 and words[0] in _NUMBERED and all(w.isdigit() for w in words[1:])


def _is_container(words: list[str]) -> bool:
    return bool(words) and all(w in _CONTAINERS for w in words)


def _ways_to_name(root: Path, present: list[str]) -> str:
    """What to state in the profile so that these folders are the splits."""
    stated: dict[str, str] = {}
    for name, split in zip(present, _splits_of(present), strict=True):
        inner = wrapped(root / name)
        if split and split not in stated and inner is not None:
            stated[split] = inner.relative_to(root).as_posix()
    if "train" in stated:
        shown = ", ".join(f'`{name} = "{stated[name]}"`' for name in SPLITS if name in stated)
        return f"state them in [dataset]: {shown}"
    return f'name the folder of classes: `dataset.root = "{root / present[0]}"`; `dataset.train = "."` says that these are the classes'
