"""The whole analysis: which checkpoints and images are meant, influences of one or two runs, and how alike they rank the other side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillctl import DataError, OpenedRun, ProfileError, RunError
from distillctl_tracin import ranks
from distillctl_tracin.gradients import gradients_of
from distillctl_tracin.influence import Split, Values, add_influences
from distillctl_tracin.request import Request
from distillctl_tracin.sketch import Sketch

FILE = {"run": "influence.npy", "other": "influence-other.npy"}


@dataclass(frozen=True)
class Network:
    """One run's share. values: (train, test), float32. rates: learning rate by epoch. parameters: whose gradients were taken."""

    run: OpenedRun
    values: Values
    rates: Mapping[int, float]
    parameters: int
    seconds: float

    @property
    def milliseconds(self) -> float:
        """For one value."""
        return 1000 * self.seconds / self.values.size


@dataclass(frozen=True)
class Overlap:
    """What two rankings have in common among their first k (proponents) and last k (opponents)."""

    k: int
    proponents: int
    opponents: int

    def jaccard(self) -> float:
        """Common proponents as a share of those of either."""
        return self.proponents / (2 * self.k - self.proponents)

    def z(self, pool: int) -> float | None:
        """How many standard deviations of chance the proponents are above its mean; None where chance gives one number."""
        law = ranks.chance(self.k, pool)
        return (self.proponents - law.expected) / law.deviation if law.deviation else None


@dataclass(frozen=True)
class Likeness:
    """How alike both networks rank the images for one training image."""

    overlaps: Sequence[Overlap]
    spearman: float | None
    kendall: float | None
    rank_biased: float


@dataclass(frozen=True)
class Traced:
    """What was found. labels: of the images in `train` and `test`, which are positions in their splits."""

    train: Sequence[int]
    test: Sequence[int]
    split: Split
    labels: tuple[Sequence[int], Sequence[int]]
    run: Network
    other: Network | None = None
    likeness: Sequence[Likeness] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def networks(self) -> Mapping[str, Network]:
        """By their keys in files."""
        return {"run": self.run} | ({} if self.other is None else {"other": self.other})


def trace(run: OpenedRun, other: OpenedRun | None, request: Request, out: Path, *, told: Callable[[str], Any] = str) -> Traced:
    """Influences by a run, and by another one at the same epochs, with how alike they are.

    out: a folder where the values are written, as arrays of float32 that `numpy.load` reads. told: is called with what is computed next.

    Raises:
        DistillError: a run kept no checkpoints, images are not those of the training or differ between runs, or there is no such layer.
    """
    split: Any = request.split or ("test" if run.task.data.test is not None else "val")
    runs = [run] if other is None else [run, other]
    for one in runs:
        _check_task(one)
    if other is not None:
        _check_same(run, other, split)
    rates = _rates(runs, request.checkpoints)
    train, test = _images(run, request, split)
    networks = []
    for key, one in zip(FILE, runs, strict=False):
        values = _values(out, FILE[key], (len(train), len(test)))
        sketch = None if request.project is None else Sketch(request.project, request.seed)
        make = partial(gradients_of, classifier=one.spec.classifier, layers=request.layers, sketch=sketch)
        begin = time.perf_counter()
        count = add_influences(one, make, rates[one.path], train, test, split, values, partial(_tell, told, one))
        if not np.isfinite(values).all():
            raise RunError(f"influences of `{one.path}` are not finite, as its losses are not", hint="`--checkpoints` names earlier epochs")
        networks.append(Network(one, values, rates[one.path], count, time.perf_counter() - begin))
    likeness: list[Likeness] = []
    notes: list[str] = []
    if other is not None:
        topk = [k for k in request.topk if k < len(test)]
        if beyond := [k for k in request.topk if k >= len(test)]:
            what = ", ".join(f"{k:,}" for k in beyond)
            notes.append(f"of {len(test):,} images the first {what} are not compared: they are all, or more")
        likeness = [_likeness(one, two, topk) for one, two in zip(networks[0].values, networks[1].values, strict=True)]
    labels = (_labels(run, "train", train), _labels(run, split, test))
    return Traced(train, test, split, labels, networks[0], networks[1] if other is not None else None, likeness, notes)


def _tell(told: Callable[[str], Any], run: OpenedRun, epoch: int) -> None:
    told(f"epoch {epoch} of {run.path}")


def _check_task(run: OpenedRun) -> None:
    if run.task.cuts_rows or not {"labels", "logits"} <= run.task.gives:
        raise ProfileError(
            f"the images of `{run.path}` have no classes, and influence is traced by the cross entropy on labels",
            hint="runs of `classification` are traced",
        )


def _check_same(run: OpenedRun, other: OpenedRun, split: Split) -> None:
    """Whether a position means the same image in both runs."""
    for name in ("train", split):
        if run.listing(name) != other.listing(name):
            raise DataError(
                f"the {name} images of `{run.path}` and `{other.path}` are not the same ({run.listing(name)}; {other.listing(name)}), so "
                "that their rankings cannot be compared",
                hint="train both with the same data, `dataset.limit`, and where splits are drawn the same seed",
            )
    if run.task.data.classes != other.task.data.classes:
        raise DataError(f"`{run.path}` and `{other.path}` have other classes")


def _rates(runs: Sequence[OpenedRun], wanted: Sequence[int] | None) -> dict[Path, dict[int, float]]:
    """For each run the learning rates of the epochs of which all runs have checkpoints, or of those that are wanted."""
    for run in runs:
        if not run.kept:
            hint = "`train.keep_every = 2` keeps the network of every second epoch: train with `--set train.keep_every=2`"
            raise DataError(f"`{run.path}` kept no checkpoints of its epochs, along which influence is traced", hint=hint)
    both = [epoch for epoch in runs[0].kept if all(epoch in run.kept for run in runs)]
    epochs = both if wanted is None else sorted(set(wanted))
    having = "; ".join(f"`{run.path}` has those of {', '.join(map(str, run.kept))}" for run in runs)
    if missing := [epoch for epoch in epochs if epoch not in both]:
        raise DataError(f"there is no checkpoint of epoch {missing[0]}", where="--checkpoints", hint=having)
    if not epochs:
        raise DataError("both runs kept no checkpoint of the same epoch", hint=having)
    rates = {run.path: {epoch: float(run.records[epoch]["lr"]) for epoch in epochs} for run in runs}
    if idle := [path for path, found in rates.items() if not any(found.values())]:
        raise DataError(f"the learning rate of `{idle[0]}` was 0 in these epochs, and with it all influence", where="--checkpoints")
    return rates


def _images(run: OpenedRun, request: Request, split: Split) -> tuple[list[int], list[int]]:
    """Positions of the images of both sides."""
    labels = run.images("train").labels.tolist()
    train = [i for i, label in enumerate(labels) if label >= 0] if request.train is None else list(request.train)
    for i in train:
        if not 0 <= i < len(labels):
            raise ProfileError(f"there is no training image {i}: {len(labels):,} are counted from 0", where="--train")
        if labels[i] < 0:
            raise ProfileError(f"the training image {i} has no label", where="--train")
    total = len(run.images(split))
    count = total if request.test is None else min(request.test, total)
    return train, [i * total // count for i in range(count)]


def _labels(run: OpenedRun, split: Split, index: Sequence[int]) -> list[int]:
    every = run.images(split).labels.tolist()
    return [every[i] for i in index]


def _values(out: Path, name: str, shape: tuple[int, int]) -> Values:
    """Zeros in a mapped file: all pairs of a data set are more than memory may hold."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        values: Values = np.lib.format.open_memmap(out / name, mode="w+", dtype=np.float32, shape=shape)
    except OSError as error:
        raise RunError(
            f"`{out / name}` cannot be written: {(error.strerror or str(error)).lower()}", hint="`--out FOLDER` names another place"
        ) from error
    return values


def _likeness(one: Values, other: Values, topk: Sequence[int]) -> Likeness:
    best, worst = ranks.depths(one, other), ranks.depths(-one, -other)
    overlaps = [Overlap(k, ranks.common(best, k), ranks.common(worst, k)) for k in topk]
    return Likeness(overlaps, ranks.spearman(one, other), ranks.kendall(one, other), ranks.rank_biased_overlap(best))
