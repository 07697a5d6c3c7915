"""Looks at all data of a profile before anything is trained: every file decoded, classes counted, copies across splits found."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distillctl.api.data import NO_LABEL, ArrayImages, Images, Splits, StoredImage
from distillctl.build.data import build_splits
from distillctl.data.examine import Finding, examine
from distillctl.errors import DataError
from distillctl.profile.schema import Profile
from distillctl.text import counted, some

_REMARKS = {
    "ending": "have an ending of another format, which does not matter",
    "exif": "have an EXIF block that cannot be read, taken as not rotated",
    "animated": "have several pictures, of which the first is taken",
    "one colour": "have the same colour everywhere",
}


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest value."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class SplitFacts:
    """One split. classes: images of each class, by name. width, height: in pixels, upright, of the images that are whole."""

    images: int
    classes: Mapping[str, int]
    width: Range | None
    height: Range | None


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used; `kind` is one of `distillctl.data.examine.KINDS`, or `target` if it does not fit what is to be learnt."""

    split: str
    path: str
    kind: str
    problem: str


@dataclass(frozen=True)
class Place:
    """Where an image is: a file, or its position in memory. label: its class, if it has one."""

    split: str
    image: str
    label: str


@dataclass(frozen=True)
class DataReport:
    """All that was found.

    data: classes and splits in words.
    duplicates: for every picture that is there more than once, all its places.
    remarks: what is odd and not broken, in sentences.
    """

    data: str
    splits: Mapping[str, SplitFacts]
    broken: Sequence[Broken]
    duplicates: Sequence[Sequence[Place]]
    remarks: Sequence[str]

    @property
    def across(self) -> list[Sequence[Place]]:
        """Pictures that are in more than one split."""
        return [places for places in self.duplicates if len({place.split for place in places}) > 1]

    @property
    def contradicting(self) -> list[Sequence[Place]]:
        """Pictures that have several classes."""
        return [places for places in self.duplicates if len({place.label for place in places}) > 1]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "across": len(self.across), "contradicting": len(self.contradicting)}


def check_data(profile: Profile) -> DataReport:
    """Decodes every file of every split in worker processes; images in memory are counted and compared.

    `dataset.limit` counts, and `dataset.on_error` does not: what `skip` would leave out is reported.

    Raises:
        DistillError: the data are not there, or their layout is wrong.
        RunError: a worker process died.
    """
    splits = build_splits(profile, skips=False)
    parts: dict[str, Images] = {name: images for name in ("train", "val", "test") if (images := getattr(splits, name)) is not None}
    files: dict[str, Sequence[Path | StoredImage]] = {
        name: images.paths for name, images in parts.items() if not isinstance(images, ArrayImages)
    }
    found = examine(files, splits.view, profile.train.workers)
    seen = {name: found[name] if name in found else _in_memory(images) for name, images in parts.items()}
    names = {name: _names(name, images) for name, images in parts.items()}
    return DataReport(
        data=splits.overview,
        splits={name: _facts(splits, images, seen[name]) for name, images in parts.items()},
        broken=[
            Broken(name, image, finding.kind, finding.problem)
            for name in parts
            for image, finding in zip(names[name], seen[name], strict=True)
            if finding.kind
        ]
        + list(_misfits(splits, parts, seen, names)),
        duplicates=_duplicates(splits, parts, seen, names),
        remarks=[*_remarks(seen, names), *splits.remarks],
    )


def _misfits(
    splits: Splits, parts: Mapping[str, Images], seen: Mapping[str, Sequence[Finding]], names: Mapping[str, Sequence[str]]
) -> Iterator[Broken]:
    """Whole images that cannot be cut together with their targets. Black ones of the same size stand for them, since they are decoded."""
    if splits.joint is None:
        return
    for name, images in parts.items():
        for number, finding in enumerate(seen[name]):
            if finding.kind:
                continue
            try:
                splits.joint.evaluation(torch.zeros(3, finding.height, finding.width, dtype=torch.uint8), images.targets[number])
            except DataError as error:
                yield Broken(name, names[name][number], "target", f"`{names[name][number]}`: {error.problems[0].message}")


def _in_memory(images: Images) -> list[Finding]:
    assert isinstance(images, ArrayImages)
    height, width = images.images.shape[1:3]
    rows = images.images.cpu().numpy()
    return [Finding(width=width, height=height, digest=hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()) for row in rows]


def _names(split: str, images: Images) -> list[str]:
    return [str(p) for p in images.paths] if not isinstance(images, ArrayImages) else [f"{split}[{i}]" for i in range(len(images))]


def _facts(splits: Splits, images: Images, found: Sequence[Finding]) -> SplitFacts:
    counts = Counter(images.labels.tolist())
    classes = {name: counts[label] for label, name in enumerate(splits.classes)} if len(images.labels) and splits.joint is None else {}
    whole = [finding for finding in found if not finding.kind]
    return SplitFacts(len(images), classes, _range([one.width for one in whole]), _range([one.height for one in whole]))


def _range(values: Sequence[int]) -> Range | None:
    return Range(min(values), statistics.median(values), max(values)) if values else None


def _duplicates(
    splits: Splits, parts: Mapping[str, Images], seen: Mapping[str, Sequence[Finding]], names: Mapping[str, Sequence[str]]
) -> list[Sequence[Place]]:
    places: dict[str, list[Place]] = defaultdict(list)
    for split, images in parts.items():
        labels = images.labels.tolist() or [None] * len(images)
        for image, finding, label in zip(names[split], seen[split], labels, strict=True):
            if not finding.kind:
                bare = label in (None, NO_LABEL) or splits.joint is not None
                places[finding.digest].append(Place(split, image, "" if bare else _class(splits, label)))
    return [group for group in places.values() if len(group) > 1]


def _class(splits: Splits, label: int) -> str:
    return splits.classes[label] if splits.classes else str(label)


def _remarks(seen: Mapping[str, Sequence[Finding]], names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for remark, words in _REMARKS.items():
        if odd := [name for split, found in seen.items() for name, one in zip(names[split], found, strict=True) if remark in one.remarks]:
            yield f"{counted(len(odd), 'image')} {words}: {some(odd)}"
