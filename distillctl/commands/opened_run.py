"""A run opened to look into it: its data, its student as it was after an epoch, its images as pictures. Plugins' commands read runs so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distillctl.api.data import Images
from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.build.data import evaluation_loader
from distillctl.build.device import pick_device
from distillctl.build.models import build_deployed
from distillctl.commands.evaluate import check_images, run_of_teacher
from distillctl.commands.resume_check import listing
from distillctl.commands.run_images import RunImages
from distillctl.data.workers import worker_deaths
from distillctl.engine.experiment import MAIN
from distillctl.engine.precision import ieee
from distillctl.errors import DataError, DistillError
from distillctl.models.features import evaluating
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import Profile
from distillctl.rundir import digests
from distillctl.rundir.directory import RunDirectory
from distillctl.weights import read_file, state_dict

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class OpenedRun:
    """A run and its data. `open_run` makes it.

    path: the run directory. device: where its networks and batches are.
    task: with its data, `task.data`; `spec`: declaration of the student's model.
    records: the lines of `metrics.jsonl` by epoch, counted from 1, without those of phases.
    kept: epochs whose student was kept by `train.keep_every`, in their order.
    teacher: the run directory of its teacher; None where it has none or several, or its run is not there.
    """

    path: Path
    device: torch.device
    task: Task
    spec: ModelSpec
    records: Mapping[int, Mapping[str, Any]]
    kept: tuple[int, ...]
    teacher: Path | None
    _run: RunDirectory = field(repr=False)
    _registry: Registry = field(repr=False)
    _found: RunImages = field(repr=False)

    def images(self, split: Split) -> Images:
        """The images of a split.

        Raises:
            DataError: there is no such split.
        """
        images: Images | None = getattr(self.task.data, split)
        if images is None:
            raise DataError(f"the data of `{self.path}` have no {split} split")
        return images

    def check_images(self, split: Split) -> None:
        """Whether classes and images of a split are those with which the run was trained.

        Raises:
            DataError: they are others.
        """
        check_images(self._run, self._profile, self.task, self._registry, split)

    def listing(self, split: Split) -> str:
        """Number and hash of a split's images: equal for two runs if they have the same ones in the same order."""
        return listing(self.task.data, (split,))[split]

    @contextmanager
    def student(self, epoch: int) -> Iterator[nn.Module]:
        """The student as it was after an epoch of `kept`, as evaluations ask it: on the device, in evaluation mode, in float32 (without
        TF32).

        Raises:
            DataError: there is no checkpoint of this epoch, or it is damaged.
        """
        if epoch not in self.kept:
            raise DataError(f"`{self.path}` kept no checkpoint of epoch {epoch}", hint=f"it has those of {_told(self.kept)}")
        model = build_deployed(self._profile, self.task, self._run.info().get("head"))
        file = digests.check(self._run.kept(epoch))
        state_dict.load_into(model, read_file(file), what=f"the student of `{self.path}`")
        with evaluating(model.to(self.device)), ieee():
            yield model

    def batches(self, split: Split, index: Sequence[int] | None = None, *, size: int | None = None) -> Iterator[Batch]:
        """Images of a split as evaluations see them, which augment nothing: normalised, float32, on the device.

        index: positions in the split, in the order that is wanted; None for all. `Batch.index` has them.
        size: images in a batch; by default `evaluate.batch_size`.
        """
        profile, wanted = self._profile, self._wanted(split, index)
        if size is not None:
            profile = replace(profile, evaluate=profile.evaluate.model_copy(update={"batch_size": size}))
        loader = evaluation_loader(profile, self.task, self.images(split).subset(wanted), self.device)
        with worker_deaths(), closing(loader):
            for batch in loader:
                yield replace(batch, index=wanted.to(batch.index.device)[batch.index])

    def pictures(self, split: Split, index: Sequence[int]) -> Tensor:
        """The same views before they are normalised: uint8, (N, C, H, W), on the CPU."""
        return torch.cat(list(self._found.pixels(self.images(split).subset(self._wanted(split, index)))))

    @property
    def _profile(self) -> Profile:
        return self._found.profile

    def _wanted(self, split: Split, index: Sequence[int] | None) -> Tensor:
        count = len(self.images(split))
        if index is None:
            return torch.arange(count)
        if beyond := [i for i in index if not 0 <= i < count]:
            raise DataError(f"there is no image {beyond[0]} in the {split} split of `{self.path}`, whose {count} are counted from 0")
        return torch.tensor(list(index), dtype=torch.int64)


def open_run(run: str | Path, *, device: str = "auto", overrides: Sequence[str] = (), allow_code: bool = False) -> OpenedRun:
    """Opens a run to look into it. Writes nothing.

        opened = open_run("runs/birds")
        with opened.student(opened.kept[-1]) as model:
            for batch in opened.batches("train", [17, 203]):
                logits = model(batch.images)

    Args:
        run: the run directory.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overrides: `KEY=VALUE` of the table `dataset`, such as `dataset.root=FOLDER`.
        allow_code: run the file of a model or data set of one's own.

    Raises:
        DistillError: it is not a run, or its data or the packages of its names are not there.
    """
    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    directory = RunDirectory.open(Path(run))
    found = RunImages.of(directory.path, registry, overrides)
    records = {line["epoch"]: line for line in directory.records() if line.get("phase") == MAIN}
    kept = tuple(epoch for epoch in sorted(records) if directory.kept(epoch).is_file())
    return OpenedRun(
        path=directory.path,
        device=pick_device(device),
        task=found.task,
        spec=found.profile.student.spec,
        records=records,
        kept=kept,
        teacher=_teacher(directory, registry),
        _run=directory,
        _registry=registry,
        _found=found,
    )


def _teacher(run: RunDirectory, registry: Registry) -> Path | None:
    with suppress(DistillError):  # it may be gone, and its packages with it
        profile = from_resolved(run.check_resolved(), registry, student_only=True, with_teacher=True)
        if len(profile.teachers) != 1:
            return None
        table = profile.teachers[0].table
        folder = table.run if table.profile is None else run_of_teacher(run, 0)
        return folder if folder is not None and (folder / "run.json").is_file() else None
    return None


def _told(epochs: Sequence[int]) -> str:
    """Epochs for people: `2, 4, 6`, of many the first and the last."""
    return "none" if not epochs else ", ".join(map(str, epochs if len(epochs) < 9 else [*epochs[:4], "…", *epochs[-2:]]))
