"""Which images there are, what they show, and what the classes are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distillctl import ClassFolders, DataError, list_images, scan_classes
from distillctl_imagenet.labels import NAMES, read_labels, read_lines
from distillctl_imagenet.places import Places


@dataclass(frozen=True)
class Listing:
    """Files and the positions of their classes in `ids`.

    ids: names of the class folders, sorted: WordNet numbers, by which published networks number their outputs.
    words: what a class is called, where a file says it.
    source: where the labels of `val` come from, for people.
    """

    train: list[Path]
    train_labels: list[int]
    val: list[Path]
    val_labels: list[int]
    ids: tuple[str, ...]
    words: dict[str, str]
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """`n01440764 tench`: the number keeps the order, and some words name two classes."""
        return tuple(f"{one} {self.words[one]}" if one in self.words else one for one in self.ids)


def read_listing(places: Places, val_labels: Path | None) -> Listing:
    """The images of both folders, checked against each other.

    Raises:
        DataError: a part is missing or malformed, or they do not fit each other; the hint names the way.
    """
    scan = scan_classes(places.train)
    ids = tuple(scan.images)
    if not any(scan.images.values()) or len(ids) < 2:
        packed = "`.tar`" in scan.ignored
        raise DataError(
            f"`{places.train}` has {len(ids)} class folders with {sum(map(len, scan.images.values()))} images",
            hint="unpack each of its `.tar` files into a folder of its name" if packed else "expected: `train/CLASS/IMAGE`",
        )
    if empty := [name for name, files in scan.images.items() if not files]:
        raise DataError(f"{len(empty)} folders of `{places.train}` have no image: `{empty[0]}` is the first", hint="unpack them again")
    number = {name: label for label, name in enumerate(ids)}
    train, train_labels = _flat(scan, number)
    val, labels, source = _val(places, val_labels, number)
    return Listing(train, train_labels, val, labels, ids, dict(_words(places, number)), source)


def _flat(scan: ClassFolders, number: dict[str, int]) -> tuple[list[Path], list[int]]:
    files = [path for found in scan.images.values() for path in found]
    return files, [number[name] for name, found in scan.images.items() for _ in found]


def _val(places: Places, stated: Path | None, number: dict[str, int]) -> tuple[list[Path], list[int], str]:
    """Images, labels and where those come from: of a flat folder with a list, or of class folders."""
    if not places.val.is_dir():
        raise DataError(f"there is no `{places.val}`, whose images are the test split", hint="unpack `ILSVRC2012_img_val.tar` into it")
    flat = list_images(places.val)
    if flat:
        file = stated or places.first(*NAMES)
        if file is None:
            raise DataError(
                f"nothing says what the {len(flat)} images of `{places.val}` show",
                hint="sort them into `val/CLASS/`, name a list by `dataset.val_labels`, or put one beside them: "
                + ", ".join(f"`{name}`" for name in NAMES),
            )
        return flat, read_labels(file, flat, number, places), f"`{file.name}`"
    if stated is not None:
        raise DataError(f"`val_labels` has no effect: the images of `{places.val}` lie in folders of their classes")
    scan = scan_classes(places.val)
    scan.images = {name: files for name, files in scan.images.items() if files}
    if unknown := sorted(scan.images.keys() - number.keys()):
        raise DataError(f"{len(unknown)} folders of `{places.val}` that `{places.train}` lacks: `{unknown[0]}` is the first")
    if not scan.images:
        raise DataError(f"there is no image in `{places.val}`", hint="unpack `ILSVRC2012_img_val.tar` into it")
    return *_flat(scan, number), "folders"


def _words(places: Places, number: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Class and the first of its words, for the classes that there are: from Kaggle's list, or WordNet's."""
    file = places.first("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
    if file is None:
        return
    for name, _, words in (line.replace("\t", " ", 1).partition(" ") for line in read_lines(file)):
        if name in number and words.strip():
            yield name, words.partition(",")[0].strip()
