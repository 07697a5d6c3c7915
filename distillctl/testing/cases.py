"""What a contract for methods needs to know, and how it builds and evaluates a method without an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Setup, Wants, expand_groups
from distillctl.api.options import Options
from distillctl.api.specs import MethodSpec, Spec
from distillctl.plugin.registry import load
from distillctl.testing.tensors import GEOMETRIES, Shapes, make_batch, make_features, make_progress, make_setup


def options_of(spec: Spec, **values: object) -> Options:
    """The options of a plugin object with these values and defaults for the rest.

    Raises:
        pydantic.ValidationError: a value is wrong or unknown.
    """
    model: type[Options] = load(spec.options, spec.name) if spec.options else Options
    return model.model_validate(values)


@dataclass(frozen=True)
class Inputs:
    """What one call of a method receives, but for the progress."""

    batch: Batch
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same batch with changed features of both sides."""
        return Inputs(self.batch, map_features(self.student, change), map_features(self.teacher, change))

    def select(self, index: Tensor) -> Inputs:
        """These samples, in this order."""
        batch = Batch(self.batch.images[index], self.batch.labels[index], self.batch.index[index])
        # With several passes the student's features have a dimension before the batch's.
        dim = 1 if self.student and self.student["logits"].ndim > 2 else 0
        student = map_features(self.student, lambda value: value.index_select(dim, index))
        return Inputs(batch, student, map_features(self.teacher, lambda value: value[index]))

    def share(self, start: int, count: int) -> Inputs:
        """What one of several processes sees of it: `count` samples from `start` on."""
        some = self.select(torch.arange(start, start + count))
        return Inputs(
            replace(some.batch, start=start, total=len(self.batch.labels), whole=len(self.batch.labels)), some.student, some.teacher
        )


class MethodCase:
    """One method with its options: attributes to set, and helpers for one's own tests.

    spec: the method.
    options: values of options that differ from the defaults.
    inner_spec, inner_options: for wrappers, the wrapped method.
    num_classes, num_data: of the made-up data.
    epoch: epoch (from 1) in which the method is evaluated.
    phase: name of the phase in which it is evaluated; empty for the main part.
    phase_has_student: whether the phase trains the student.
    """

    spec: ClassVar[MethodSpec]
    options: ClassVar[Mapping[str, object]] = {}
    inner_spec: ClassVar[MethodSpec | None] = None
    inner_options: ClassVar[Mapping[str, object]] = {}
    num_classes: ClassVar[int] = 10
    num_data: ClassVar[int] = 96
    epoch: ClassVar[float] = 3.0
    phase: ClassVar[str] = ""
    phase_has_student: ClassVar[bool] = True

    def wants(self) -> Wants:
        """What the method and, for a wrapper, the wrapped method want."""
        wants: Wants = load(self.spec.implementation, self.spec.name).wants(options_of(self.spec, **self.options))
        if self.inner_spec is None:
            return wants
        inner: Wants = load(self.inner_spec.implementation, self.inner_spec.name).wants(options_of(self.inner_spec, **self.inner_options))
        return Wants((*wants.student, *inner.student), (*wants.teacher, *inner.teacher), max(wants.passes, inner.passes))

    def setup(self, geometry: str = "wider") -> Setup:
        """The setup for shapes of this name (see `distillctl.testing.tensors.GEOMETRIES`), with wanted features alone."""
        shapes, wants = GEOMETRIES[geometry], self.wants()
        return make_setup(
            _chosen(shapes.student, wants.student),
            _chosen(shapes.teacher, wants.teacher) if self.spec.needs_teacher else None,
            self.num_classes,
            self.num_data,
        )

    def build(self, setup: Setup | None = None, seed: int = 0) -> Method:
        """The method, in training mode; its random start comes from `seed`."""
        setup = self.setup() if setup is None else setup
        implementation = load(self.spec.implementation, self.spec.name)
        arguments: list[Any] = [options_of(self.spec, **self.options), setup]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.inner_spec is not None:
                inner = load(self.inner_spec.implementation, self.inner_spec.name)
                arguments.append(inner(options_of(self.inner_spec, **self.inner_options), setup))
            method: Method = implementation(*arguments)
        method.enter(next(phase for phase in method.phases() if phase.name == self.phase) if self.phase else None)
        return method

    def inputs(self, setup: Setup, size: int = 7, seed: int = 0, scale: float = 1.0) -> Inputs:
        """A batch and features of both sides; the student's require gradients, and have as many passes as the method wants."""
        passes = self.wants().passes
        student = make_features(setup.student, passes * size, 2 * seed + 1, scale)
        if passes > 1:
            student = {name: value.unflatten(0, (passes, size)) for name, value in student.items()}
        if self.phase and not self.phase_has_student:
            student = {}
        for value in student.values():
            value.requires_grad_()
        return Inputs(make_batch(setup, size, seed), student, make_features(setup.teacher, size, 2 * seed + 2, scale))

    def ready(self, size: int = 7, *, scale: float = 1.0) -> tuple[Method, Inputs]:
        """The method, and inputs for it."""
        setup = self.setup()
        return self.build(setup), self.inputs(setup, size, scale=scale)

    def terms(self, method: Method, inputs: Inputs, epoch: float | None = None, seed: int = 0) -> dict[str, Tensor]:
        """The method's terms; what it draws at random comes from `seed`."""
        progress = make_progress(self.epoch if epoch is None else epoch)
        student = with_head(method, inputs.student)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return method.terms(inputs.batch, student, inputs.teacher, progress, phase=self.phase)

    def loss(self, method: Method, inputs: Inputs, epoch: float | None = None, seed: int = 0) -> Tensor:
        """The sum of the terms, 0-dim."""
        return torch.stack(list(self.terms(method, inputs, epoch, seed).values())).sum()

    def steps(self, method: Method, setup: Setup, seeds: range) -> None:
        """Trains the method's own parameters for some steps, as an engine would, one batch for each seed."""
        groups = method.parameter_groups()
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9) if groups else None
        for seed in seeds:
            torch.autograd.backward(self.loss(method, self.inputs(setup, seed=seed), seed=seed))
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                method.after_step()


def with_head(method: Method, student: Features) -> Features:
    """The student's features as they are once the method's head has replaced the classifier."""
    head = method.head()
    if head is None or not student:
        return student
    value, result = student[head.feature], dict(student)
    for name, layer in head.layers.named_children():
        value = result[f"head.{name}"] = layer(value.to(torch.promote_types(value.dtype, torch.float32)))
    return {**result, "logits": value}


def map_features(features: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Changed copies, leaves again; a tensor that has two names still has them."""
    changed = {id(v): change(v.detach().clone()).detach().requires_grad_(v.requires_grad) for v in features.values()}
    return {name: changed[id(value)] for name, value in features.items()}


def assert_finite_gradients(method: Method, inputs: Inputs, loss: Tensor) -> None:
    """Goes backward from a loss that must be finite, and looks at every gradient that arrives."""
    assert loss.isfinite(), loss
    torch.autograd.backward(loss)
    for name, value in [*inputs.student.items(), *method.named_parameters()]:
        assert value.grad is None or value.grad.isfinite().all(), f"the gradient of {name} is not finite"


def _chosen(shapes: Shapes, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of these names, where `stages` stands for all stages; shallow to deep."""
    stages = [name for name in shapes if name.startswith("stage") and ":" not in name]
    wanted = {name for name in expand_groups(names, stages) if not name.startswith("head.")}
    unknown = wanted - set(shapes) - {"logits"}
    if unknown:
        raise KeyError(f"the contract has no shape for {sorted(unknown)}: override `setup`")
    return {name: shape for name, shape in shapes.items() if name in wanted}
