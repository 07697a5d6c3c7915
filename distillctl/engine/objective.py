"""Everything that is trained, as one module: the student and the methods, with the objective as its forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from distillctl.api.distributed import gather_rows
from distillctl.api.method import OUTPUT, Batch, Features, Method, Phase, Progress, fp32
from distillctl.api.returned import check_metrics, check_relabels, check_terms
from distillctl.api.specs import Unit
from distillctl.api.task import Outputs, Seen, Task
from distillctl.errors import PluginError
from distillctl.models.ensemble import confidences, mean_logits
from distillctl.models.features import Tapped

TASK = "task"
"""Name of the label loss among the terms."""

Norm = Literal["running", "batch"]
Looks = Mapping[str, Outputs]
"""What the teacher saw with either kind of batch normalisation: `running`, `batch`; only those that somebody wants. Of several teachers,
the second saw `running@1`, and so on."""


class Asked(NamedTuple):
    """Who is asked: the number of a teacher, from 0, and how its batch normalisation works."""

    number: int
    norm: Norm

    @property
    def key(self) -> str:
        """Its key in `Looks`."""
        return f"{self.norm}@{self.number}" if self.number else self.norm


def teacher_of(key: str) -> Asked:
    """Whom a key of `Looks` means."""
    norm, _, number = key.partition("@")
    return Asked(int(number or 0), "batch" if norm == "batch" else "running")


@dataclass(frozen=True)
class Weighted:
    """A method with its name in the record, its weight, and the epochs over which the weight grows.

    gather: compare the images of all processes, not only of this one's share.
    needs_teacher, unit, relabels, passes, teacher_norm: what the method declares (`distillctl.MethodSpec`, `distillctl.Wants`).
    teachers: numbers of those whom it asks; more than one with `mean` alone.
    mean: what each of them counts in the mean of their probabilities, or `confidence`; None for the one teacher as it is.
    """

    name: str
    method: Method
    weight: float
    warmup_epochs: float = 0.0
    needs_teacher: bool = True
    passes: int = 1
    teacher_norm: Norm = "running"
    gather: bool = False
    unit: Unit = "images"
    relabels: bool = False
    teachers: tuple[int, ...] = (0,)
    mean: tuple[float, ...] | Literal["confidence"] | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        """The keys of what it is given of `Looks`."""
        return tuple(Asked(number, self.teacher_norm).key for number in self.teachers) if self.needs_teacher else ()


class Losses(NamedTuple):
    """Of one batch.

    task, distillation: the weighted label loss and the weighted sum of all terms, 0-dim float32; what is minimised is their sum.
    terms: every unweighted term by name: `task`, `kd`, `dkd.tckd`, …
    figures: of training, as sums over the images; None if the student was not trained for its task.
    constant: names of the terms that have no gradient.
    """

    task: Tensor
    distillation: Tensor
    terms: dict[str, Tensor]
    figures: dict[str, Tensor] | None
    constant: tuple[str, ...] = ()


class Objective(nn.Module):
    """task_weight · label loss + Σ weight · min(epoch / warmup_epochs, 1) · term, over the terms of all methods.

    In a phase of a method it is the terms of that phase alone.

    task: knows the label loss, and what methods see of a forward.
    student: the tapped student.
    methods: in the order of the profile. A method (or the label loss) of weight 0 is not evaluated.
    teacher: the network that may be asked about what the student computed, or several; they are not a part of this module.
    frozen: names of the student's modules that are in evaluation mode always. A parameter that needs no gradient is never trained.
    lr_scales: by what the schedule's rate is multiplied for a parameter of the student, by its name; 1 where it says nothing.
    """

    def __init__(
        self,
        task: Task,
        student: Tapped,
        methods: Sequence[Weighted],
        *,
        task_weight: float,
        teacher: nn.Module | Sequence[nn.Module] | None = None,
        frozen: Sequence[str] = (),
        lr_scales: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.student = student
        # a tuple hides them from `parameters`
        self._teachers = (teacher,) if teacher is None or isinstance(teacher, nn.Module) else tuple(teacher)
        self.weighted = tuple(m for m in methods if m.weight > 0)
        self.methods = nn.ModuleDict({m.name: m.method for m in methods})
        self.task_weight = task_weight
        own = {id(p) for p in self.methods.parameters()}  # a head is part of the student, but belongs to its method
        self._student_parameters = [p for p in student.parameters() if p.requires_grad and id(p) not in own]
        scales = {id(p): (lr_scales or {}).get(name, 1.0) for name, p in student.model.named_parameters()}
        self._scales = [scales[id(p)] for p in self._student_parameters] if lr_scales else []
        self._frozen = tuple(frozen)
        classifier = student.spec.classifier
        head = set() if not classifier else {id(p) for p in student.model.get_submodule(classifier).parameters()}
        self._body = {id(p) for p in self._student_parameters} - head
        self._owner: Weighted | None = None
        self._phase: Phase | None = None
        self.enter()

    def enter(self, method: str = "", phase: Phase | None = None) -> None:
        """Makes ready for a phase of a method, or for the main part: what is trained, and the mode of every module."""
        self._owner = next((m for m in self.weighted if m.name == method), None)
        self._phase = phase
        with_student = phase is None or phase.student
        self.student.train(with_student)
        for name in self._frozen:
            self.student.model.get_submodule(name).training = False
        for parameter in self._student_parameters:
            parameter.requires_grad_(phase is None or (phase.student and id(parameter) in self._body))
        for entry in self.weighted:
            if phase is None or entry is self._owner:
                entry.method.enter(phase)
            else:
                entry.method.eval().requires_grad_(False)

    @property
    def active(self) -> tuple[Weighted, ...]:
        """The methods that are evaluated now."""
        return tuple(m for m in self.weighted if m.method.in_main) if self._owner is None else (self._owner,)

    @property
    def teacher_norms(self) -> tuple[str, ...]:
        """How teachers have to run now, as keys of `Looks`; empty if nobody needs them."""
        return tuple(dict.fromkeys(key for m in self.active for key in m.asks))

    @property
    def passes(self) -> int:
        """Forward passes of the student over a batch."""
        return 1 if self._phase is not None else max((m.passes for m in self.active), default=1)

    @property
    def student_forwards(self) -> int:
        """How often the student sees each image of a batch now."""
        return 0 if self._phase is not None and not self._phase.student else self.passes

    def observe(self, batch: Batch) -> Outputs:
        """What the student computes for a batch; with several passes, features of shape (passes, B, …)."""
        if not self.student_forwards:
            return {}
        if self.passes == 1:
            return self.task.forward(self.student, batch)
        outputs = self.task.forward(self.student, _repeated(batch, self.passes, images=True))
        return {name: value.unflatten(0, (self.passes, batch.count)) for name, value in outputs.items()}

    def relabelled(self, batch: Batch, teacher: Looks, progress: Progress) -> Batch:
        """The batch with what the teacher takes its targets for, where a method says so."""
        entry = next((m for m in self.active if m.relabels), None)
        if entry is None or self._phase is not None:
            return batch
        with torch.no_grad(), fp32(batch.images.device):
            look = teacher[entry.asks[0]] if entry.mean is None else self._mean(entry, [teacher[key] for key in entry.asks], batch)
            guesses = self.task.guesses(self._teachers[0], look, batch)
            found = entry.method.relabel(guesses, progress)
            check_relabels(found, guesses, f"the method `{entry.name}`")
            return self.task.relabelled(batch, guesses, found._replace(weights=found.weights * _weight(entry, progress)))

    def losses(self, batch: Batch, student: Outputs, teacher: Looks, progress: Progress, learnt: Batch | None = None) -> Losses:
        """The two sums, and every unweighted term. learnt: the batch as it was relabelled."""
        if self._owner is not None and self._phase is not None:
            return self._phase_losses(self._owner, self._phase, batch, student, teacher, progress)
        learnt = batch if learnt is None else learnt
        terms: dict[str, Tensor] = {}
        task = distillation = torch.zeros((), device=batch.images.device)
        if self.task_weight > 0:
            outputs, answered = student, learnt
            if self.passes > 1:
                outputs, answered = _in_a_row(student), _repeated(learnt, self.passes, images=False)
            with fp32(batch.images.device):
                given = self.task.label_loss(outputs, answered)
            terms |= _named(TASK, check_terms(given, f"`label_loss` of {type(self.task).__name__}", batch.images.device))
            for value in terms.values():
                task = task + self.task_weight * value
        answers = self._answers(student, teacher)
        for entry in self.active:
            if entry.relabels:
                continue
            weight = _weight(entry, progress)
            found = _named(entry.name, self._terms(entry, batch, student, answers, progress))
            for value in found.values():
                distillation = distillation + weight * value
            terms |= found
        first = student if self.passes == 1 else {name: value[0] for name, value in student.items()}
        return Losses(task, distillation, terms, self.task.figures(first, batch), _constant(terms))

    def _answers(self, student: Outputs, teacher: Looks) -> Looks:
        """What the teacher says to what the student computed, where a method asks for it; otherwise what it saw."""
        asking = [m for m in self.active if m.needs_teacher and not m.relabels]
        asked = {key for m in asking if (m.unit == "rows" or not self.task.cuts_rows) for key in m.asks}
        with torch.no_grad():
            return {
                key: self.task.answer(self._teachers[teacher_of(key).number], look, student) if key in asked else look
                for key, look in teacher.items()
            }

    def _terms(self, entry: Weighted, batch: Batch, outputs: Outputs, answers: Looks, progress: Progress) -> dict[str, Tensor]:
        """The terms of one method; with more passes than it wants, the mean over the passes."""
        (here, student), seen = self.task.seen(outputs, batch)[entry.unit], self._teacher_seen(entry, batch, answers)
        if entry.gather and here.total > here.rows:
            images = here.images[:1].expand(here.total, *here.images.shape[1:])  # nobody compares pixels
            labels = gather_rows(here, here.labels) if len(here.labels) else here.labels
            batch = Batch(images, labels, gather_rows(here, here.index), 0, here.total, here.whole)
            seen = {name: gather_rows(here, _wide(value)) for name, value in seen.items()}
            student = {name: self._gathered(here, _wide(value)) for name, value in student.items()}
            here = batch
        if entry.passes == self.passes:
            return _some(entry.method.terms(here, student, seen, progress), entry.name)
        runs = [entry.method.terms(here, {name: value[k] for name, value in student.items()}, seen, progress) for k in range(self.passes)]
        return {key: torch.stack([run[key] for run in runs]).mean() for key in _some(runs[0], entry.name)}

    def _teacher_seen(self, entry: Weighted, batch: Batch, answers: Looks) -> Features:
        """What a method is given of the teacher: nothing if it needs none, whatever others want."""
        seen = [self.task.seen(answers[key], batch)[entry.unit].features for key in entry.asks]
        if entry.mean is not None:
            return self._mean(entry, seen, batch)
        return seen[0] if seen else {}

    def _mean(self, entry: Weighted, seen: Sequence[Features], batch: Batch) -> dict[str, Tensor]:
        """The logits of several teachers as those of one."""
        with torch.no_grad(), fp32(batch.images.device):
            logits = [one[OUTPUT] for one in seen]
            weights = confidences(logits, batch.labels, batch.soft) if isinstance(entry.mean, str) else entry.mean
            assert weights is not None
            return {OUTPUT: mean_logits(logits, weights)}

    def _gathered(self, batch: Batch, value: Tensor) -> Tensor:
        """A feature of the student over all processes; of several passes, whose dimension stands first, each."""
        if self.passes == 1:
            return gather_rows(batch, value)
        return gather_rows(batch, value.transpose(0, 1)).transpose(0, 1)

    def _phase_losses(self, entry: Weighted, phase: Phase, batch: Batch, outputs: Outputs, teacher: Looks, progress: Progress) -> Losses:
        here, student = self.task.seen(outputs, batch)[entry.unit] if outputs else Seen(batch, {})
        seen = self._teacher_seen(entry, batch, self._answers(outputs, teacher))
        name = f"{entry.name}.{phase.name}"
        terms = _named(name, _some(entry.method.terms(here, student, seen, progress, phase=phase.name), name))
        total = torch.stack(list(terms.values())).sum() * (entry.weight if phase.weighted else 1.0)
        return Losses(torch.zeros_like(total), total, terms, None, _constant(terms))

    def forward(self, batch: Batch, teacher: Looks, progress: Progress) -> Losses:
        """Runs the student and evaluates everything."""
        learnt = self.relabelled(batch, teacher, progress)
        return self.losses(batch, self.observe(learnt), teacher, progress, learnt)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's parameters, then each method's groups: every parameter that is trained now, exactly once."""
        groups: list[dict[str, Any]] = self._scaled_groups() or [{"params": self._student_parameters}]
        for entry in self.weighted:
            groups += entry.method.parameter_groups()
        trained = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
        return [group for group in trained if group["params"]]

    def _scaled_groups(self) -> list[dict[str, Any]]:
        """The student's parameters by their scales. The record has the rate of the first group, so that scales near 1 come first."""
        found: dict[float, list[nn.Parameter]] = {}
        for parameter, scale in zip(self._student_parameters, self._scales, strict=False):
            found.setdefault(scale, []).append(parameter)
        return [{"params": found[scale], "lr_scale": scale} for scale in sorted(found, key=lambda scale: (abs(math.log(scale)), scale))]

    def after_step(self) -> None:
        """Lets the methods update what is not trained by gradients."""
        if self._phase is None:
            for entry in self.active:
                entry.method.after_step()

    def own_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers of the methods but for the statistics of batch normalisation, which are those of the first of several processes."""
        norms = {id(b) for m in self.methods.modules() if isinstance(m, nn.modules.batchnorm._NormBase) for b in m.buffers()}
        for name, buffer in self.methods.named_buffers():
            if id(buffer) not in norms:
                yield name, buffer

    def metrics(self) -> Iterator[tuple[str, Tensor]]:
        """What the methods report beside their terms.

        Raises:
            PluginError: it is not what a record can hold.
        """
        if self._phase is None:
            for entry in self.active:
                for key, value in check_metrics(entry.method.metrics(), f"the method `{entry.name}`").items():
                    yield f"{entry.name}.{key}", value


def _weight(entry: Weighted, progress: Progress) -> Tensor | float:
    """The factor of a method now."""
    return entry.weight * (progress.epoch / entry.warmup_epochs).clamp(max=1.0) if entry.warmup_epochs > 0 else entry.weight


def _wide(value: Tensor) -> Tensor:
    """Halves cannot be sent everywhere, and losses are computed in float32 anyhow."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _some(terms: dict[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Terms of a method that is evaluated, which has at least one."""
    if not terms:
        raise PluginError(
            f"`{owner}` returned no terms, so that nothing is learnt from it", hint="a method without terms has `in_main = False`"
        )
    return terms


def _constant(terms: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(name for name, value in terms.items() if not value.requires_grad)


def _named(owner: str, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Terms under the names of the record: `kd`, `dkd.tckd`."""
    return {f"{owner}.{key}" if key else owner: value for key, value in terms.items()}


def _in_a_row(outputs: Outputs) -> Outputs:
    """What the model returned in several passes, one after the other."""
    return {OUTPUT: outputs[OUTPUT].flatten(0, 1)}


def _repeated(batch: Batch, times: int, *, images: bool) -> Batch:
    """The images of a batch, or its targets, several times one after the other."""
    if images:
        return replace(batch, images=torch.cat([batch.images] * times))
    targets = batch.targets
    if targets is not None:
        targets = torch.cat([targets] * times) if isinstance(targets, Tensor) else [*targets] * times
    soft = None if batch.soft is None else batch.soft.repeat(times, 1)
    weights = None if batch.weights is None else batch.weights.repeat(times)
    return replace(batch, labels=batch.labels.repeat(times), targets=targets, soft=soft, weights=weights)
