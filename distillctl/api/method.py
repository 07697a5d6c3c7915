"""The base classes of methods, and what an engine hands to them.

A method is one `torch.nn.Module` that turns features into named loss terms. It has no loop, no optimizer and no weight:
the engine has the one loop, every parameter of the method is trained, and weights live in the profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distillctl.api.relabel import Guesses, Relabels
from distillctl.api.returned import check_terms
from distillctl.errors import RunError

Features = Mapping[str, Tensor]
"""What one side computed: every wanted name, and `"logits"`, for a classifier what the model returned: (rows, classes). Where rows and
images differ (`MethodSpec.unit`), methods on images are given no logits."""
OUTPUT = "logits"
"""The name among `Features` of what the model itself returned."""


@dataclass(frozen=True)
class Batch:
    """One batch; with several processes, this one's rows of it.

    images: (B, C, H, W), normalised. Views of unequal sizes (`View.largest`) lie in the upper left, and beside them all is 0.
    labels: int64, one for each row; empty where the task has none.
    index: int64, (B,), position of each image in the training split: 0 … len(Setup.labels) − 1.
    start: rows of lower processes. total: rows of all processes; 0 means that there are no others.
    whole: images of the step, of which these may be one of several parts; 0 means these.
    targets: what else the task learns from, one for each image; a tensor (B, …) or a list. Of data with `joint` views a list of dicts.
    soft: float32, (B, classes), the share of each class where images were mixed, otherwise None. `labels` and `index` are then those of the
        image that has the larger share.
    seeds: int64, (B,), where the task draws (`Task.draws`), otherwise None: a number for each image, which depends on the run's seed, the
        step and the image alone.
    weights: float32, one for each label, its factor in the label loss where a method gave it (`Method.relabel`); None: each counts once.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    start: int = 0
    total: int = 0
    whole: int = 0
    targets: Any = None
    soft: Tensor | None = None
    seeds: Tensor | None = None
    weights: Tensor | None = None

    @property
    def count(self) -> int:
        """How many images these are."""
        return len(self.images)

    @property
    def rows(self) -> int:
        """How many rows methods work on: one for each label; without labels, the images."""
        return len(self.labels) or self.count

    @property
    def share(self) -> float:
        """How much of the step these images are. The engine takes weighted means: a sum over images is divided by this."""
        return self.count / self.whole if self.whole else 1.0


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

    A name is a stage that the model declares (`stage3`, `stage3:pre`), `last` (the last stage), `final` (the map whose
    average the classifier receives; usually the last stage), `pooled` (what the classifier receives), `stages` (all
    declared stages without the stem), `stages:pre` (the same before their last ReLU), `head.NAME` (what the layer NAME of the
    method's own `head` gives), or a module path such as `layer4.1.conv2`, with `:input` for what the module receives.
    `logits` come by themselves.

    passes: forward passes of the student over every batch, which differ in what dropout draws. With more than one, the
        student's features have a dimension before the batch's: (passes, B, …). Methods that want one pass see each of them in
        turn, and their terms are averaged; so is the label loss. Phases have one pass.
    teacher_norm: what the teacher's batch normalisation uses, its running statistics or those of the batch. Neither changes
        any buffer of the teacher.
    """

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    passes: int = 1
    teacher_norm: Literal["running", "batch"] = "running"


def expand_groups(names: Iterable[str], stages: Sequence[str]) -> tuple[str, ...]:
    """Names of features, with `stages` and `stages:pre` replaced by what they stand for in a model with these stages."""
    groups = {"stages": tuple(stages), "stages:pre": tuple(f"{stage}:pre" for stage in stages)}
    return tuple(one for name in names for one in groups.get(name, (name,)))


@dataclass(frozen=True)
class Side:
    """The student or the teacher, as a method sees it when it is built.

    name: the model's name in the profile.
    model: the module; methods must not change it.
    shapes: shape without the batch dimension of every wanted feature, measured by a real forward.
    stages: the names that `"stages"` stood for, shallow to deep.
    classifier: the last Linear layer, if the model declares one; for a student whose classifier a head replaced, what stands there.
    paths: the module path, without suffixes, at which each wanted feature is taken.
    sample: every wanted feature of two images of noise, in evaluation mode; for checks of how features hang together.
    """

    name: str
    model: nn.Module
    shapes: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...] = ()
    classifier: nn.Module | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    sample: Mapping[str, Tensor] = field(default_factory=dict)

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

    def expand(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of features, with `stages` and `stages:pre` replaced by what they stand for."""
        return expand_groups(names, self.stages)


@dataclass(frozen=True)
class Phase:
    """A part of a run before its main part, in which a method trains something on its own.

    Nothing but the method's `forward_phase` is evaluated in it: no label loss, no other method. What it trains is the student's
    body (all but the classifier) if `student` is true, and the method's submodules named in `modules`. These submodules are trained
    here and nowhere else; all others of the method are trained in the main part alone.

    name: shown in the display and the record as `METHOD.NAME`.
    epochs: its length, beside `train.epochs`.
    lr: constant learning rate; None means the optimizer's `lr`.
    weighted: whether the method's weight stands before its terms.
    """

    name: str
    epochs: int
    lr: float | None = None
    student: bool = False
    modules: tuple[str, ...] = ()
    weighted: bool = False


@dataclass(frozen=True)
class Head:
    """What takes the place of the student's classifier, in training and in the deployed student.

    feature: the student's feature that the first layer receives, one of those that the method wants.
    layers: named layers, the last of which gives the logits. What layer NAME gives is the student's feature `head.NAME`. So that
        the deployed student needs no method's package, they are made of Conv2d, BatchNorm2d, ReLU, AdaptiveAvgPool2d, Flatten, Dropout,
        Linear, Identity and Sequential. Their trained parameters belong to the method.
    """

    feature: str
    layers: nn.Sequential


@dataclass(frozen=True)
class Setup:
    """All that a method may need to know when it is built.

    num_classes: what `logits` have a number for: classes, for a detector with the background.
    labels: int64, (N,), label of every training image, on the CPU; `Batch.index` points into it.
    epochs: length of the run.
    unequal: views differ in size from batch to batch, and `Side.shapes` are those of the largest batch.
    """

    student: Side
    teacher: Side | None
    num_classes: int
    labels: Tensor
    epochs: int = 1
    unequal: bool = False

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

    called: str = ""
    """Its name in the profile, which the engine sets; for messages."""

    notes: Sequence[str] = ()
    """What the user should know of it with these models and data, a sentence each: an option without effect. Told when a run begins."""

    in_main: bool = True
    """False for a method that has no term once its phases are over: the main part evaluates neither it nor, if nobody else
    needs it, the teacher."""

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__()
        self._trainable: frozenset[str] | None = None

    @classmethod
    def wants(cls, options: Any) -> Wants:
        """The features to capture; only the logits unless overridden."""
        return Wants()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor | dict[str, Tensor]:
        """Unweighted terms: one 0-dim tensor, or several by name. Without a teacher, `teacher` is empty."""
        raise NotImplementedError

    def relabel(self, guesses: Guesses, progress: Progress) -> Relabels:
        """What the student learns from in place of a batch's targets; called before its forward, without gradients, of a method whose spec
        says `relabels`. Such a method has no terms: its weight in the profile multiplies the weights that it gives here.
        """
        raise NotImplementedError

    def phases(self) -> Sequence[Phase]:
        """What is trained before the main part of the run, in this order."""
        return ()

    def forward_phase(
        self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress
    ) -> Tensor | dict[str, Tensor]:
        """As `forward`, in the phase of this name; `progress` counts within it. `student` is empty if the phase does not train it."""
        raise NotImplementedError

    def enter(self, phase: Phase | None) -> None:
        """Makes ready for a phase, or for the main part (None): sets what is trained and the modes of the modules."""
        early = {name for one in self.phases() for name in one.modules}
        now = () if phase is None else phase.modules
        if self._trainable is None:  # a method may hold what is never trained
            self._trainable = frozenset(name for name, p in self.named_parameters() if p.requires_grad)
        for name, parameter in self.named_parameters():
            owner = next((m for m in early if name.startswith(f"{m}.")), None)
            parameter.requires_grad_(name in self._trainable and (owner in now if phase or owner else True))
        self.train(phase is None)
        for module in early:
            self.get_submodule(module).train(module in now)

    def head(self) -> Head | None:
        """What replaces the student's classifier; None keeps it. The same layers at every call."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer: `params`, and where they differ `lr_scale` (factor), `weight_decay`, `decay` (`all` or `weights`)."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [{"params": parameters}] if parameters else []

    def after_step(self) -> None:
        """Called without gradients after every optimizer step (memory banks)."""

    def metrics(self) -> dict[str, Tensor]:
        """0-dim tensors worth a line in the record beside the terms (a learnt temperature)."""
        return {}

    def terms(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, phase: str = "", **extra: Tensor
    ) -> dict[str, Tensor]:
        """What the engine calls: `forward` in float32 with autocast off (unless `autocast`), as a dict of 0-dim tensors.

        The key `""` stands for the single term of a method that returns a bare tensor. `phase` is empty in the main part.

        Raises:
            PluginError: the method returned something else.
        """
        forward = partial(self.forward_phase, phase) if phase else self.forward
        if self.autocast:
            result = forward(batch, student, teacher, progress, **extra)
        else:
            with fp32(batch.images.device):
                result = forward(batch, _floats(student), _floats(teacher), progress, **extra)
        if not self.called:  # on its own, as in the contract's tests, which say more
            return result if isinstance(result, dict) else {"": result}
        where = f" in its phase `{phase}`" if phase else ""
        return check_terms(result, f"the method `{self.called}`{where}", batch.images.device)


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
        # Of this object: what holds for the inner method holds for the whole.
        self.compiles = type(self).compiles and inner.compiles  # type: ignore[misc]
        self.in_main = inner.in_main
        self.notes = inner.notes

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The wrapper's own parameters, then the groups of the inner method."""
        inner = {id(p) for p in self.inner.parameters()}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in inner]
        return [*([{"params": own}] if own else []), *self.inner.parameter_groups()]

    def phases(self) -> Sequence[Phase]:
        """Those of the inner method."""
        return [replace(phase, modules=tuple(f"inner.{name}" for name in phase.modules)) for phase in self.inner.phases()]

    def forward_phase(
        self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress
    ) -> Tensor | dict[str, Tensor]:
        return self.inner.terms(batch, student, teacher, progress, phase=phase)

    def head(self) -> Head | None:
        return self.inner.head()

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
    "Head",
    "Method",
    "Phase",
    "Progress",
    "Setup",
    "Side",
    "TemperatureMethod",
    "Wants",
    "Wrapper",
    "fp32",
]
