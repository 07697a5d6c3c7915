"""Images of a finished run, as its student sees them before they are normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distillctl.api.data import Images
from distillctl.api.task import Task
from distillctl.build.data import build_task, evaluation_loader
from distillctl.commands.evaluate import with_data_found
from distillctl.data import EvalLoader
from distillctl.data.order import epoch_order
from distillctl.data.pixels import unnormalised
from distillctl.engine.evaluate import evaluate
from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import RunDirectory

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RunImages:
    """The data of a run, found again.

    split: `test`, or where there is none `val`, or `train`: on which figures are told.
    """

    profile: Profile
    task: Task
    split: str

    @classmethod
    def of(cls, run: Path, registry: Registry, overrides: Sequence[str] = ()) -> RunImages:
        """Those of a run directory. overrides: `KEY=VALUE` of the table `dataset`, such as `dataset.root=FOLDER`.

        Raises:
            DistillError: they are not there.
        """
        if wrong := next((text for text in overrides if not text.startswith("dataset.")), None):
            raise ProfileError(f"`{wrong}` has no effect here", where="--set", hint="allowed: keys of dataset")
        opened = RunDirectory.open(run)
        profile = with_data_found(from_resolved(opened.check_resolved(), registry, student_only=True, overrides=overrides), opened)
        task = build_task(profile, registry)
        return cls(profile, task, next(name for name in ("test", "val", "train") if getattr(task.data, name) is not None))

    @property
    def images(self) -> Images:
        """Those of the split."""
        found: Images = getattr(self.task.data, self.split)
        return found

    def shown(self, count: int) -> Iterator[Tensor]:
        """Batches of `count` images of the split, spread evenly over it: uint8, (B, C, size, size)."""
        total = len(self.images)
        spread = torch.arange(min(count, total)) * total // max(1, min(count, total))
        yield from self.pixels(self.images.subset(spread))

    def trained(self, count: int) -> Iterator[Tensor]:
        """Batches of `count` training images, drawn by the seed of the run and not augmented: uint8, (B, C, size, size)."""
        images = self.task.data.train
        yield from self.pixels(images.subset(epoch_order(len(images), self.profile.seed, 0, _CPU)[:count]))

    def figures(self, network: nn.Module) -> Mapping[str, float] | None:
        """Of a network that takes pixels, on the whole split; None where figures need more than its answers."""
        if self.task.compares:
            return None
        with closing(self._loader(self.images)) as loader:
            return evaluate(self.task, _Bytes(network), loader).figures

    def pixels(self, images: Images) -> Iterator[Tensor]:
        """Batches of these images of the run: uint8, (B, C, size, size)."""
        with closing(self._loader(images)) as loader:
            for batch in loader:
                yield batch.images.to(torch.uint8)

    def _loader(self, images: Images) -> EvalLoader:
        return evaluation_loader(self.profile, type(self.task)(unnormalised(self.task.data)), images, _CPU)


class _Bytes(nn.Module):
    """A network of pixels as evaluations ask it, which show them in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.network(images.to(torch.uint8))
        return answers
