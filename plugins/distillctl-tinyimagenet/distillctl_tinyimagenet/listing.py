"""Which images there are and what they show: folders for training, `val_annotations.txt` or folders for `val`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillctl import ClassFolders, DataError, list_images, scan_classes
from distillctl_tinyimagenet.places import IDS

ANNOTATIONS = "val_annotations.txt"
_AGAIN = "unpack tiny-imagenet-200.zip again"


@dataclass(frozen=True)
class Listing:
    """Every labelled image once, by class and then by name.

    train, val: (file, class) with the class's position in `ids`.
    ids: WordNet numbers of the classes, sorted, which is how published networks number their outputs.
    words: what `words.txt` calls each; empty without that file.
    """

    train: tuple[tuple[Path, int], ...]
    val: tuple[tuple[Path, int], ...]
    ids: tuple[str, ...]
    words: dict[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """`n01443537 goldfish`: the number keeps the order, and some words name two classes."""
        return tuple(f"{one} {self.words[one]}" if one in self.words else one for one in self.ids)


def read_listing(folder: Path) -> Listing:
    """The listing of an unpacked data set, its parts checked against each other.

    Raises:
        DataError: a part is missing or malformed, or they do not fit each other; the hint names the way.
    """
    train = scan_classes(folder / "train")
    ids = tuple(train.images)
    if empty := [name for name, files in train.images.items() if not files]:
        raise DataError(f"in `{folder / 'train'}` {some(empty, 'class folder')} without an image", hint=_AGAIN)
    if len(ids) < 2:
        raise DataError(f"`{folder / 'train'}` has {some(ids, 'class folder')}, where 200 are published", hint=_AGAIN)
    if (folder / IDS).is_file():
        stated = {line.strip() for line in _lines(folder / IDS) if line.strip()}
        if odd := sorted(stated ^ set(ids)):
            raise DataError(
                f"`{folder / IDS}` and the folders of `train` do not fit: {some(odd, 'class')} in only one of them", hint=_AGAIN
            )
    number = {name: label for label, name in enumerate(ids)}
    found = _val(folder / "val", number)
    return Listing(_numbered(train, number), tuple(sorted(found, key=lambda pair: (pair[1], pair[0]))), ids, _words(folder, number))


def some(names: Sequence[object], word: str) -> str:
    """`3 files (`a`, `b`, `c`)`: a count with the first names."""
    plural = {"class": "classes"}.get(word, f"{word}s")
    shown = ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {word if len(names) == 1 else plural}" + (f" ({shown})" if names else "")


def _numbered(scan: ClassFolders, number: dict[str, int]) -> tuple[tuple[Path, int], ...]:
    return tuple((path, number[name]) for name, files in scan.images.items() for path in files)


def _val(val: Path, number: dict[str, int]) -> tuple[tuple[Path, int], ...]:
    """The official validation images: flat beside a list of labels, as they are published, or sorted into folders."""
    if not val.is_dir():
        raise DataError(f"there is no `{val}`, whose images are the test split", hint=_AGAIN)
    flat = list_images(val / "images") if (val / "images").is_dir() else []
    if flat:
        return _annotated(val, flat, number)
    sorted_in = scan_classes(val)
    sorted_in.images = {name: files for name, files in sorted_in.images.items() if files}
    if not sorted_in.images:
        raise DataError(f"there is no image in `{val}`, neither in `images` nor in class folders", hint=_AGAIN)
    if unknown := sorted(sorted_in.images.keys() - number.keys()):
        raise DataError(
            f"`{val}` has {some(unknown, 'folder')} that `train` lacks",
            hint="expected: `val/images/IMAGE` with `val/val_annotations.txt`, or `val/CLASS/IMAGE` with the classes of `train`",
        )
    return _numbered(sorted_in, number)


def _annotated(val: Path, flat: Sequence[Path], number: dict[str, int]) -> tuple[tuple[Path, int], ...]:
    """The images of `val/images`, each with the class that the list of labels gives it."""
    file = val / ANNOTATIONS
    if not file.is_file():
        raise DataError(
            f"`{file}` is missing, which says what the {len(flat)} images of `{val / 'images'}` show",
            hint=f"{_AGAIN}, or sort the images into `val/CLASS/`",
        )
    labels: dict[str, int] = {}
    for line_number, line in enumerate(_lines(file), start=1):
        name, _, rest = line.partition("\t")
        label = number.get(rest.partition("\t")[0].strip())
        if not line.strip():
            continue
        if label is None or name in labels:
            problem = f"repeats `{name}`" if label is not None else "is not an image and a class of `train`"
            raise DataError(f"line {line_number} of `{file}` {problem}: `{line[:80]}`", hint=_AGAIN)
        labels[name] = label
    if odd := sorted(labels.keys() ^ {path.name for path in flat}):
        raise DataError(f"`{file}` and `{val / 'images'}` do not fit: {some(odd, 'image')} in only one of them", hint=_AGAIN)
    return tuple((path, labels[path.name]) for path in flat)


def _words(folder: Path, number: dict[str, int]) -> dict[str, str]:
    """WordNet number → the first of its words, for the classes that there are."""
    if not (folder / "words.txt").is_file():
        return {}
    pairs = (line.partition("\t") for line in _lines(folder / "words.txt"))
    return {name: words.partition(",")[0].strip() for name, _, words in pairs if name in number and words.strip()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}", hint=_AGAIN) from error
