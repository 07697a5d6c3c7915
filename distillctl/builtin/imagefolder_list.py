"""Reads which image has which label from a CSV file, for images that do not lie in folders of classes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from distillctl.api.class_folders import EXTENSIONS, ClassFolders, class_name, require_folder
from distillctl.builtin.imagefolder_layout import split_of_name
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.errors import DataError, ProfileError
from distillctl.text import counted, some

_COLUMNS = ("path", "label", "split")
_DELIMITERS = ",;\t"


def read_list(options: ImageFolderOptions) -> tuple[dict[str, Path], dict[str, ClassFolders]]:
    """The file of labels and its images, for every split that its rows name; without a column of splits all are of train.

    Raises:
        ProfileError: the file or one of its columns is not there.
        DataError: a row is wrong, or files are missing.
    """
    require_folder(options.root)
    assert options.labels
    file = options.root / options.labels
    present = _Present()
    scans: dict[str, ClassFolders] = {}
    lines: dict[Path, int] = {}
    missing: list[str] = []
    for line, values in _rows(file, options.columns):
        where = f"line {line} of `{file}`"
        label, split = class_name(values["label"].strip()), values.get("split")
        if not values["path"].strip() or not label:
            raise DataError(f"{where} has no {'label' if values['path'].strip() else 'path'}")
        name = "train" if split is None else split_of_name(split)
        if not name:
            raise DataError(f"{where} has the split `{split}`", hint="known: train, val, test, and words such as training, valid, testing")
        path = options.root / values["path"].strip()
        found = present.find(path, where)
        if found is None:
            missing.append(f"{values['path'].strip()}` (line {line})")
        path = found or path
        if path in lines:
            raise DataError(f"{where} names `{path}` again, which line {lines[path]} has: an image has one label and one split")
        lines[path] = line
        scans.setdefault(name, ClassFolders()).images.setdefault(label, []).append(path)
    if missing and options.on_error != "skip":
        shown = ", ".join(f"`{name}" for name in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(
            f"{len(missing)} of {counted(len(lines), 'file')} that `{file}` lists are not in `{options.root}`: {shown}",
            hint='paths start at `dataset.root`; `dataset.on_error = "skip"` leaves out what is missing',
        )
    if "train" not in scans:
        raise DataError(f"no row of `{file}` is of the train split" if scans else f"`{file}` has no rows below its header")
    for name, scan in scans.items():
        if unknown := sorted(set(scan.images) - set(scans["train"].images)):
            raise DataError(f"`{file}` has labels in {name} that no training image has: {some(unknown)}")
        scan.images = {label: sorted(scan.images[label]) for label in sorted(scan.images)}
    return dict.fromkeys(scans, file), scans


def _rows(file: Path, columns: list[str] | None) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number of the line and the values of every row, by `_COLUMNS`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ProfileError(f"there is no file `{file}`", where="[dataset]", hint="`labels` starts at `dataset.root`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list `{file}` cannot be read: {error}", hint="it must be a CSV file in UTF-8") from error
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        places = _places(file, header, columns)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"line {reader.line_num} of `{file}` has {len(row)} values, and the header names {counted(len(header), 'column')}"
                )
            yield reader.line_num, {column: row[place] for column, place in places.items()}
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of `{file}` is not CSV: {error}") from error


def _places(file: Path, header: list[str], columns: list[str] | None) -> dict[str, int]:
    """Where the columns are that are read."""
    named = list(_COLUMNS) if columns is None else columns
    lower = [name.lower() for name in header] if columns is None else header
    optional = {"split"} if columns is None else set()
    if absent := [name for name in named if name not in lower and name not in optional]:
        raise ProfileError(
            f"the first line of `{file}` names no column {some(absent)}: it has {some(header)}",
            where="[dataset]",
            hint='`columns = ["PATH", "LABEL"]`, or three with that of the split, says how they are called there',
        )
    return {meant: lower.index(name) for meant, name in zip(_COLUMNS, named, strict=False) if name in lower}


class _Present:
    """Which files are there; every folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def find(self, path: Path, where: str) -> Path | None:
        """The file, or the image of this name with any ending, for lists that leave it out; None if there is none.

        Raises:
            DataError: several images have this name.
        """
        names, stems = self._listed(path.parent)
        if path.name in names:
            return path
        found = stems.get(path.name, [])
        if len(found) > 1:
            raise DataError(f"{where} leaves out the ending, and there are {some(sorted(found))}")
        return path.with_name(found[0]) if found else None

    def _listed(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._folders:
            try:
                names = set(os.listdir(folder))
            except OSError:
                names = set()
            stems: dict[str, list[str]] = {}
            for name in names:
                stem, ending = os.path.splitext(name)
                if ending.lower() in EXTENSIONS:
                    stems.setdefault(stem, []).append(name)
            self._folders[folder] = names, stems
        return self._folders[folder]
