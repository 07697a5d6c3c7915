"""The base classes of methods, and what an engine hands to them.

A method is one `torch.nn.Module` that turns features into named loss terms. It has no loop, no optimizer and no weight:
the engine has the one loop, every parameter of the method is trained, and weights live in the profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distillctl.errors import RunError

Features = Mapping[str, Tensor]
"""What one side computed: every wanted name, and always `"logits"` of shape (B, num_classes)."""


@dataclass(frozen=True)
class Batch:
    """One batch.

    images: (B, C, H, W), normalised.
    labels: int64, (B,).
    index: int64, (B,), position of each image in the training split: 0 … len(Setup.labels) − 1.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Progress:
    """Where the run is, as 0-dim float32 tensors on the device, so that compiled code does not specialise on them.

    epoch: 1-based number of the current epoch.
    fraction: share of all steps done, in [0, 1).
    """

    epoch: Tensor
    fraction: Tensor


@dataclass(frozen=True)
class Wants:
    """Names of the features that a method reads, side by side.

    A name is a stage that the model declares (`stage3`, `stage3:pre`), `last` (the last stage), `pooled` (what the
    classifier receives), `stages` (all declared stages without the stem and without pre-activations), or a module
    path such as `layer4.1.conv2`, with `:input` for what the module receives. `logits` always come.
    """

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """The student or the teacher, as a method sees it when it is built.

    name: the model's name in the profile.
    model: the module; methods must not change it.
    shapes: shape without the batch dimension of every wanted feature, measured by a real forward.
    stages: the names that `"stages"` stood for, shallow to deep.
    classifier: the last Linear layer, if the model declares one.
    """

    name: str
    model: nn.Module
    shapes: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...] = ()
    classifier: nn.Module | None = None

    def channels(self, name: str) -> int:
        """Number of channels (or of dimensions, for a vector) of a wanted feature."""
        return self.shapes[name][0]

    def feature_map(self, name: str, method: str) -> tuple[int, int, int]:
        """Shape (C, H, W) of a wanted feature that must be a map.

        Raises:
            RunError: it is not a map; the message names the method, the model and the shape.
        """
        shape = self.shapes[name]
        if len(shape) != 3:
            raise RunError(
                f"`{method}` needs a feature map (C, H, W), but `{name}` of `{self.name}` has shape {shape}",
                hint="choose another stage: `distillctl show MODEL` lists those a model declares",
            )
        return shape[0], shape[1], shape[2]


@dataclass(frozen=True)
class Setup:
    """All that a method may need to know when it is built.

    labels: int64, (N,), label of every training image, on the CPU; `Batch.index` points into it.
    epochs: length of the run.
    """

    student: Side
    teacher: Side | None
    num_classes: int
    labels: Tensor
    epochs: int = 1

    def require_teacher(self) -> Side:
        """The teacher's side; the engine has made sure that there is one if the spec says `needs_teacher`."""
        if self.teacher is None:
            raise RunError("this method needs a [teacher]")
        return self.teacher


class Method(nn.Module):
    """A distillation method.

    Subclasses set up their modules in `__init__(options, setup)` and compute unweighted terms in `forward`. The docstring
    of the class states formula, reduction and source.
    """

    compiles: ClassVar[bool] = True
    """False if `torch.compile(fullgraph=True)` cannot take the forward; the docstring says why."""

    autocast: ClassVar[bool] = False
    """False: features arrive in float32 and autocast is off. True: the method's modules run in the run's precision and
    the method opens `fp32()` itself around its reductions (for methods with heavy modules, such as MGD's generator)."""

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__()

    @classmethod
    def wants(cls, options: Any) -> Wants:
        """The features to capture; only the logits unless overridden."""
        return Wants()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor | dict[str, Tensor]:
        """Unweighted terms: one 0-dim tensor, or several by name. Without a teacher, `teacher` is empty."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer: `params`, and where they differ `lr_scale` (factor) and `weight_decay`."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [{"params": parameters}] if parameters else []

    def after_step(self) -> None:
        """Called without gradients after every optimizer step (memory banks)."""

    def metrics(self) -> dict[str, Tensor]:
        """0-dim tensors worth a line in the record beside the terms (a learnt temperature)."""
        return {}

    def terms(self, batch: Batch, student: Features, teacher: Features, progress: Progress, **extra: Tensor) -> dict[str, Tensor]:
        """What the engine calls: `forward` in float32 with autocast off (unless `autocast`), as a dict of 0-dim tensors.

        The key `""` stands for the single term of a method that returns a bare tensor.
        """
        if self.autocast:
            result = self.forward(batch, student, teacher, progress, **extra)
        else:
            with fp32(batch.images.device):
                result = self.forward(batch, _floats(student), _floats(teacher), progress, **extra)
        return result if isinstance(result, dict) else {"": result}


class TemperatureMethod(Method):
    """A method with a temperature that a wrapper (CTKD) may replace by a tensor at every step."""

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> Tensor | dict[str, Tensor]:
        """As `Method.forward`; `temperature`, 0-dim or (B, 1), takes the place of the options' own."""
        raise NotImplementedError


class Wrapper(Method):
    """A method that changes how another one works. `inner` is built before it and trained with it."""

    def __init__(self, options: Any, setup: Setup, inner: Method) -> None:
        super().__init__(options, setup)
        self.inner = inner

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The wrapper's own parameters, then the groups of the inner method."""
        inner = {id(p) for p in self.inner.parameters()}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in inner]
        return [*([{"params": own}] if own else []), *self.inner.parameter_groups()]

    def after_step(self) -> None:
        self.inner.after_step()

    def metrics(self) -> dict[str, Tensor]:
        return self.inner.metrics()


@contextmanager
def fp32(device: torch.device) -> Iterator[None]:
    """An island in which autocast is off."""
    with torch.autocast(device_type=device.type, enabled=False):
        yield


def _floats(features: Features) -> dict[str, Tensor]:
    return {name: value.float() if value.dtype in (torch.float16, torch.bfloat16) else value for name, value in features.items()}


__all__ = [
    "Batch",
    "Features",
    "Method",
    "Progress",
    "Setup",
    "Side",
    "TemperatureMethod",
    "Wants",
    "Wrapper",
    "fp32",
]
