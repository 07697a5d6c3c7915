"""Where the parts of a data set lie: as the options say, or in the usual places. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillctl import ProfileError
from distillctl_coco.options import CocoOptions

_COCO = (
    ("annotations/instances_{}2017.json", "{}2017"),
    ("annotations/instances_{}.json", "{}"),
    ("instances_{}.json", "images"),
    ("{}/_annotations.coco.json", "{}"),
)
"""Annotation file and folder of the images, with the name of the split."""
_YOLO = ("images/{}", "{}/images", "images/{}2017")
_NAMES: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Place:
    """One split. labels: the annotation file, or the folder of the text files. images: the folder."""

    labels: Path
    images: Path


def find(options: CocoOptions) -> dict[str, Place]:
    """The splits that are there, by name; `train` is, unless it is stated to be empty.

    Raises:
        distillctl.ProfileError: something that is named is not there, or nothing to train on.
    """
    if not options.root.is_dir():
        raise ProfileError(f"there is no folder `{options.root}`", where="dataset.root", hint="it is the folder of the data set")
    found = {name: place for name in _NAMES if (place := _place(options, name)) is not None}
    if not found and options.train == "":
        raise ProfileError(f"in `{options.root}` nothing says which classes there are", where="[dataset]", hint="`val` or `test` does")
    if "train" not in found and options.train != "":
        tried = ", ".join(f"`{pattern[0].format('train')}`" for pattern in _COCO) if options.format == "coco" else _patterns("train")
        hint = "`train` names it" if options.format == "coco" else '`train` names it; `format = "coco"` is for JSON files'
        raise ProfileError(f"in `{options.root}` there is none of {tried}", where="[dataset]", hint=hint)
    return found


def labels_beside(images: Path) -> Path:
    """Where YOLO's text files of a folder of images lie: the last folder `images` of the path is called `labels`.

    Raises:
        distillctl.ProfileError: there is no such folder in the path.
    """
    parts = list(images.parts)
    if "images" not in parts:
        raise ProfileError(f"no part of `{images}` is called `images`, beside which `labels` could lie", where="[dataset]")
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def preview(options: CocoOptions) -> str:
    """What lies there, for `check`.

    Raises:
        distillctl.ProfileError: as `find`.
    """
    more = "" if options.unlabelled is None else f", and without labels `{options.unlabelled}`"
    return f"boxes in `{options.root}`: {', '.join(f'{name} `{place.labels}`' for name, place in find(options).items())}{more}"


def _patterns(name: str) -> str:
    return ", ".join(f"`{pattern.format(name)}`" for pattern in _YOLO)


def _place(options: CocoOptions, name: str) -> Place | None:
    stated: str | None = getattr(options, name)
    if stated == "":
        return None
    if options.format == "yolo":
        return _yolo(options.root, name, stated)
    folder: str | None = getattr(options, f"{name}_images")
    words = _NAMES[name] if stated is None else [word for words in _NAMES.values() for word in words]
    for word in words:
        for file, images in _COCO:
            usual = Place(options.root / file.format(word), options.root / (images.format(word) if folder is None else folder))
            if usual.labels.is_file() and stated in (None, file.format(word)):
                return _with_images(usual, name)
    if stated is None:
        return None
    place = Place(options.root / stated, options.root / ("images" if folder is None else folder))
    if not place.labels.is_file():
        raise ProfileError(f"there is no annotation file `{place.labels}`", where=f"dataset.{name}")
    return _with_images(place, name)


def _with_images(place: Place, name: str) -> Place:
    if not place.images.is_dir():
        raise ProfileError(
            f"there is no folder `{place.images}` with the images of `{place.labels}`",
            where="[dataset]",
            hint=f"`{name}_images` names it",
        )
    return place


def _yolo(root: Path, name: str, stated: str | None) -> Place | None:
    usual = [root / pattern.format(word) for word in _NAMES[name] for pattern in _YOLO] if stated is None else [root / stated]
    images = next((folder for folder in usual if folder.is_dir()), None)
    if images is None:
        if stated is None:
            return None
        raise ProfileError(f"there is no folder `{usual[0]}`", where=f"dataset.{name}")
    labels = labels_beside(images)
    if not labels.is_dir():
        raise ProfileError(f"there is no folder `{labels}` with the text files of `{images}`", where=f"dataset.{name}")
    return Place(labels, images)
