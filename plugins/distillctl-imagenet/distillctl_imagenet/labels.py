"""What the images of a flat `val` show, from one of the files that are passed around with them.

| file | a line |
| --- | --- |
| `LOC_val_solution.csv` (Kaggle) | `ILSVRC2012_val_00000001,n01751748 111 108 …`, below a heading |
| `val.txt`, `val.csv` | image and class, a WordNet number or a count from 0 in the order of the sorted numbers |
| `imagenet_2012_validation_synset_labels.txt` | a WordNet number, in the order of the images |
| `ILSVRC2012_validation_ground_truth.txt` | a number of the development kit, from 1, in the order of the images |

The kit counts classes in an order of its own, which only its `meta.mat` or the `map_clsloc.txt` of later years tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from distillctl import DataError
from distillctl_imagenet.matlab import read_meta
from distillctl_imagenet.places import Places

NAMES = (
    *("val.txt", "val.csv", "val_labels.txt", "val_labels.csv", "LOC_val_solution.csv"),
    *("imagenet_2012_validation_synset_labels.txt", "ILSVRC2012_validation_ground_truth.txt"),
)
"""Names of such files, in the order in which they are looked for."""
_SEPARATOR = re.compile(r"[,;\s]+")


def read_labels(file: Path, images: Sequence[Path], number: Mapping[str, int], places: Places) -> list[int]:
    """The class of each image.

    Args:
        file: one of the kinds above, whatever its name; what its lines hold decides.
        images: sorted by name.
        number: class → its label.
        places: where the kit's list of classes may lie.

    Raises:
        DataError: the file is malformed, or it and the images do not fit.
    """
    rows = [_SEPARATOR.split(line.strip().replace('"', ""), maxsplit=2)[:2] for line in read_lines(file)]
    if not rows:
        raise DataError(f"`{file}` is empty")
    if all(len(row) == 1 for row in rows):
        return _in_order(file, [row[0] for row in rows], images, number, places)
    if rows[0][-1] not in number and not rows[0][-1].isdecimal():
        rows = rows[1:]  # a heading
    labels: dict[str, int] = {}
    for row in rows:
        label = _label(row[-1], number)
        name = _stem(row[0])
        if label is None or len(row) != 2 or name in labels:
            what = "names an image twice" if name in labels else "is not an image and a class"
            raise DataError(
                f"a line of `{file}` {what}: `{' '.join(row)[:80]}`",
                hint=f"a class is a folder of `train`, or its position among the {len(number)} sorted ones, counted from 0",
            )
        labels[name] = label
    if missing := [image.name for image in images if _stem(image.name) not in labels]:
        raise DataError(f"`{file}` does not say what {len(missing)} of {len(images)} images show: `{missing[0]}` is the first")
    return [labels[_stem(image.name)] for image in images]


def read_lines(file: Path) -> list[str]:
    """The lines of a text that are not blank.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{file}` cannot be read: {error}") from error


def _label(text: str, number: Mapping[str, int]) -> int | None:
    if text in number:
        return number[text]
    return int(text) if text.isdecimal() and int(text) < len(number) else None


def _stem(name: str) -> str:
    """The name of an image without folders and ending: lists have it in every form."""
    return PurePosixPath(name.replace("\\", "/")).name.partition(".")[0]


def _in_order(file: Path, values: Sequence[str], images: Sequence[Path], number: Mapping[str, int], places: Places) -> list[int]:
    """Labels of a list that names no images: its lines are those of the sorted images."""
    if len(values) != len(images):
        raise DataError(f"`{file}` has {len(values)} lines, which name no images, and there are {len(images)} images")
    ids = {} if values[0] in number else _kit(file, places)
    labels = [number.get(ids.get(value, value), -1) for value in values]
    if -1 in labels:
        line = labels.index(-1)
        raise DataError(f"line {line + 1} of `{file}` is none of the {len(number)} classes of `train`: `{values[line][:80]}`")
    return labels


def _kit(file: Path, places: Places) -> dict[str, str]:
    """The development kit's number of a class → its WordNet number."""
    beside = Places(places.train, places.val, (file.parent, *places.beside))
    if (text := beside.first("map_clsloc.txt")) is not None:
        rows = [line.split() for line in read_lines(text)]
        return {row[1]: row[0] for row in rows if len(row) > 1}
    if (meta := beside.first("meta.mat")) is not None:
        return {str(one): name for one, name in read_meta(meta).items()}
    raise DataError(
        f"`{file}` counts classes as the development kit does, and what its numbers mean is not there",
        hint="put `meta.mat` of the kit (`ILSVRC2012_devkit_t12/data`) or `map_clsloc.txt` beside it, "
        f"or a list of another kind: {', '.join(f'`{name}`' for name in NAMES[:-1])}",
    )
