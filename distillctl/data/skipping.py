"""`on_error = "skip"`: files that cannot be decoded are left out, the same ones in every command that reads the same files.

All files are decoded once, as `check-data` does it; the result is kept in the cache under the names, sizes and times of all files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillctl.api.data import FileImages, Splits
from distillctl.data.batches import Workers
from distillctl.data.examine import OF_THE_SYSTEM, examine
from distillctl.data.inspection import files_digest
from distillctl.errors import DataError
from distillctl.files import cache_folder, read_json, write_json
from distillctl.text import counted, some

_VERSION = 1
_Broken = dict[str, dict[int, tuple[str, str]]]  # split → position → kind and problem


def without_broken(splits: Splits, workers: Workers) -> Splits:
    """The splits without the files that cannot be decoded; `skipped` and the description say which.

    workers: processes that decode, the first time.

    Raises:
        DataError: a split or a class of the training images has no image left.
        RunError: a worker process died.
    """
    parts = {name: images for name in ("train", "val", "test", "labelled") if isinstance(images := getattr(splits, name), FileImages)}
    broken = {name: found for name, found in _broken(parts, splits, workers).items() if found}
    if not broken:
        return splits
    problem = next(problem for found in broken.values() for _, problem in found.values())
    left: dict[str, Any] = {}
    for name, found in broken.items():
        images = parts[name]
        left[name] = images.subset(torch.tensor([i for i in range(len(images)) if i not in found], dtype=torch.int64))
        if not len(left[name]):
            raise DataError(f"none of the {counted(len(images), 'image')} of {name} can be used: {problem}")
    if "train" in left and len(parts["train"].labels):
        lost = set(parts["train"].labels.tolist()) - set(left["train"].labels.tolist())
        if lost:
            names = [splits.classes[label] if splits.classes else str(label) for label in sorted(lost)]
            raise DataError(
                f"nothing is left to train on for {counted(len(names), 'class', 'es')}: all images of {some(names)} are broken: {problem}"
            )
    skipped = {name: tuple(parts[name].paths[i] for i in found) for name, found in broken.items()}
    return replace(splits, **left, skipped=skipped, description=f"{splits.description}; {told(skipped)}")


def told(skipped: Mapping[str, Sequence[Path]]) -> str:
    """How many files are left out, of which splits, and the first of them."""
    counts = ", ".join(f"{name} {len(paths)}" for name, paths in skipped.items())
    every = [str(path) for paths in skipped.values() for path in paths]
    return f"{counted(len(every), 'broken image')} left out ({counts}): {some(every)}"


def _broken(parts: Mapping[str, FileImages], splits: Splits, workers: Workers) -> _Broken:
    files = {name: images.paths for name, images in parts.items()}
    cache = cache_folder()
    place = None
    if cache is not None:
        place = cache / "decoded" / f"{files_digest([_VERSION, splits.view.max_megapixels], files)}.json"
        if (known := _remembered(place, files)) is not None:
            return known
    found = {
        name: {i: (one.kind, one.problem) for i, one in enumerate(part) if one.kind}
        for name, part in examine(files, splits.view, workers).items()
    }
    # What the system refuses may change without a change of size or time.
    if place is not None and not any(kind in OF_THE_SYSTEM for part in found.values() for kind, _ in part.values()):
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {name: [[i, *one] for i, one in part.items()] for name, part in found.items()})
    return found


def _remembered(place: Path, files: Mapping[str, Sequence[Path]]) -> _Broken | None:
    try:
        value = read_json(place)
        found = {name: {int(i): (str(kind), str(problem)) for i, kind, problem in value[name]} for name in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(0 <= i < len(files[name]) for name, part in found.items() for i in part) else None
