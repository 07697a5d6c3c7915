"""Where the time of a step goes, against the bare work of the two networks as a yardstick.

Everything is measured in one process, in turns: engine step, yardstick, split step, and again, so that a machine whose
speed drifts spoils no ratio. The figures are medians. On a GPU a turn is several steps that are sent one after the other, as in
training, where nobody waits for each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from itertools import count, product
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from distillctl.api.method import Batch
from distillctl.api.task import Outputs
from distillctl.build.data import inspected_task
from distillctl.build.device import check_precision, pick_device
from distillctl.build.experiment import assemble
from distillctl.commands.dry_run import stand_in_teachers, synchronize
from distillctl.data.workers import worker_deaths
from distillctl.engine.determinism import deterministic_algorithms
from distillctl.engine.experiment import Experiment
from distillctl.engine.memory import keep_freed_memory
from distillctl.engine.objective import Losses
from distillctl.engine.precision import autocast
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT

T = TypeVar("T")

_SENT_TOGETHER = 10
"""Steps of a turn on a GPU."""
_BEFORE_GRAPH = 5
"""Turns after which a step is captured."""


@dataclass(frozen=True)
class Bench:
    """Seconds for one step, as medians over `steps` turns.

    step: the engine's whole step with its data.
    bare: teacher forward, student forward and backward of the label loss, and update, on a batch that lies ready.
    parts: the step taken apart; their sum is a little more than `step`, since every part waits for the device.
    ratio: median of step/bare over the pairs.
    """

    mode: str
    device: str
    threads: int
    batch_size: int
    steps: int
    step: float
    bare: float
    ratio: float
    parts: dict[str, float]

    @property
    def images_per_second(self) -> float:
        """Of the engine's whole step."""
        return self.batch_size / self.step

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**vars(self), "images_per_second": self.images_per_second}


def bench(experiment: Experiment, *, steps: int, warmup: int) -> Bench:
    """Measures a step of the experiment; its weights change.

    Args:
        experiment: assembled as for training.
        steps: turns that count.
        warmup: turns before them.
    """
    runner = _Runner(experiment)
    times = [(runner.engine(), runner.bare(), runner.split()) for _ in range(warmup + steps)][warmup:]
    return Bench(
        mode=("compiled" if experiment.settings.compiled else "eager") + (", one CUDA graph" if runner.step.graph is not None else ""),
        device=str(experiment.device),
        threads=torch.get_num_threads(),
        batch_size=runner.sample.count,
        steps=steps,
        step=statistics.median(step for step, _, _ in times),
        bare=statistics.median(bare for _, bare, _ in times),
        ratio=statistics.median(step / bare for step, bare, _ in times),
        parts={name: statistics.median(parts[name] for _, _, parts in times) for name in times[0][2]},
    )


@worker_deaths()
def bench_profile(
    profile: Profile, registry: Registry, *, steps: int, warmup: int, device: str = "auto", threads: int = 0, compile_too: bool = False
) -> list[Bench]:
    """Measures a profile's step, eager and, if asked for, compiled; each with fresh networks. On a GPU also as one CUDA graph, where
    it can be captured.
    """
    if threads:
        torch.set_num_threads(threads)
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    profile, task, _ = inspected_task(profile, registry)
    results = []
    for compiled, graph in product((False, True) if compile_too else (False,), (False, True)):
        with closing(assemble(profile, task, stand_in_teachers(profile, registry, task, ROOT, [], chosen), chosen)) as experiment:
            if graph and experiment.settings.cuda_graph == "off":
                continue
            cuda_graph = experiment.settings.cuda_graph if graph else "off"
            experiment.settings = replace(experiment.settings, compiled=compiled, cuda_graph=cuda_graph)
            with deterministic_algorithms(experiment):
                results.append(bench(experiment, steps=steps, warmup=max(warmup, _BEFORE_GRAPH) if graph else warmup))
    return results


class _Runner:
    """Takes steps in three ways over an endless stream of batches."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.step = Step(experiment)
        self.learner = self.step.learner
        compiled, network = experiment.settings.compiled, experiment.network
        self._student = _bare(experiment.student, compiled)
        self._teacher = None if network is None else _bare(network.model, compiled)
        self._number = 0
        self._together = _SENT_TOGETHER if experiment.device.type == "cuda" else 1
        self._batches = self._of_full_size()
        self.sample = next(self._batches)

    def _of_full_size(self) -> Iterator[Batch]:
        """Epoch after epoch, the batches that are as large as the first one."""
        size = 0
        for epoch in count():
            for batch in self.experiment.loader.epoch(epoch):
                size = size or batch.count
                if batch.count == size:
                    yield batch

    def _timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """Seconds of the work, and what it returns."""
        synchronize(self.experiment.device)
        started = time.perf_counter()
        result = work()
        synchronize(self.experiment.device)
        return time.perf_counter() - started, result

    def _count(self) -> int:
        """The next step's number; starts over before the run's end, where schedules are defined."""
        self._number = (self._number + 1) % self.step.total_steps
        return self._number

    def engine(self) -> float:
        """The step as training takes it."""

        def work() -> None:
            for _ in range(self._together):
                self.step(next(self._batches), self._count())

        return self._timed(work)[0] / self._together

    def bare(self) -> float:
        """The networks alone, on a batch that lies ready."""
        batch, task = self.sample, self.experiment.task
        optimizer = self.learner.optimizer if self.learner.pair is None else self.learner.pair

        def one() -> None:
            if self._teacher is not None:
                with torch.no_grad(), self._autocast():
                    self._teacher(batch.images)
            with self._autocast():
                terms = task.label_loss(task.forward(self._student, batch), batch)
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        def work() -> None:
            for _ in range(self._together):
                one()

        return self._timed(work)[0] / self._together

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.experiment.device, self.experiment.settings.precision)

    def split(self) -> dict[str, float]:
        """The step in parts. The losses are cut off from the student by leaf tensors, so that the two backwards can be told apart."""
        step, learner, times = self.step, self.learner, dict[str, float]()
        step.begin(self._count())
        learner.finite_check.begin()
        times["data"], batch = self._timed(lambda: next(self._batches))
        times["teacher"], looks = self._timed(lambda: step.look(batch))

        def forward() -> tuple[Batch, Outputs]:
            with self._autocast():
                learnt = learner.objective.relabelled(batch, looks, step.progress)
                return learnt, learner.objective.observe(learnt)

        times["student"], (learnt, features) = self._timed(forward)
        values, shape = tree_flatten(features)  # what a model returned need not be a tensor
        roots = [n for n, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
        cut = {n: values[n].detach().requires_grad_() for n in roots}
        leaves = tree_unflatten([cut.get(n, value) for n, value in enumerate(values)], shape)

        def loss() -> Losses:
            with self._autocast():
                losses = learner.objective.losses(batch, leaves, looks, step.progress, learnt)
            (losses.task + losses.distillation).backward()
            return losses

        times["loss"], losses = self._timed(loss)
        times["guard"], _ = self._timed(lambda: learner.finite_check.losses(0, batch, looks, losses))
        used = [n for n in roots if cut[n].grad is not None]
        outputs, grads = [values[n] for n in used], [cut[n].grad for n in used]
        twice = learner.pair is not None  # labels and distillation go back through the student one after the other
        times["student"] += self._timed(lambda: torch.autograd.backward(outputs, grads, retain_graph=twice))[0]
        if twice:
            times["student"] += self._timed(lambda: torch.autograd.backward(outputs, grads))[0]

        def guard() -> None:
            learner.finite_check.gradients(0, batch, () if learner.pair is None else learner.pair.second)
            if learner.ema is not None:
                learner.finite_check.average(0, batch, learner.ema.tensors)
            learner.finite_check.end(0, batch)

        times["guard"] += self._timed(guard)[0]
        times["optimizer"], _ = self._timed(learner.apply_gradients)
        if learner.ema is not None:
            times["optimizer"] += self._timed(learner.ema.update)[0]
        return times


def _bare(model: nn.Module, compiled: bool) -> nn.Module:
    return torch.compile(model, dynamic=False) if compiled else model  # type: ignore[return-value]
