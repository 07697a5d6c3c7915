"""Where the time of a step goes, against the bare work of the two networks as a yardstick.

Everything is measured in one process, in turns: engine step, yardstick, split step, and again, so that a machine whose
speed drifts spoils no ratio. The figures are medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.build.data import build_task
from distillctl.build.device import check_precision, pick_device
from distillctl.build.experiment import assemble
from distillctl.commands.dry_run import stand_in_teacher
from distillctl.data.workers import worker_deaths
from distillctl.engine.experiment import Experiment
from distillctl.engine.memory import keep_freed_memory
from distillctl.engine.precision import autocast
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT

PARTS = ("data", "teacher", "student", "loss", "guard", "optimizer")


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


def bench(experiment: Experiment, *, steps: int = 20, warmup: int = 3, compiled: bool | None = None) -> Bench:
    """Measures a step of the experiment; its weights change.

    Args:
        experiment: assembled as for training.
        steps: turns that count.
        warmup: turns before them.
        compiled: replaces the experiment's own choice.
    """
    if compiled is not None:
        experiment.settings = replace(experiment.settings, compiled=compiled)
    runner = _Runner(experiment)
    times: list[tuple[float, float, dict[str, float]]] = []
    for turn in range(warmup + steps):
        turned = (runner.engine(), runner.bare(), runner.split())
        if turn >= warmup:
            times.append(turned)
    return Bench(
        mode="compiled" if experiment.settings.compiled else "eager",
        device=str(experiment.device),
        threads=torch.get_num_threads(),
        batch_size=runner.batch_size,
        steps=steps,
        step=statistics.median(t[0] for t in times),
        bare=statistics.median(t[1] for t in times),
        ratio=statistics.median(t[0] / t[1] for t in times),
        parts={name: statistics.median(t[2][name] for t in times) for name in PARTS},
    )


def _bare(model: nn.Module, compiled: bool) -> nn.Module:
    return torch.compile(model, dynamic=False) if compiled else model  # type: ignore[return-value]


@worker_deaths()
def bench_profile(
    profile: Profile, registry: Registry, *, steps: int, warmup: int, device: str = "auto", threads: int = 0, compile_too: bool = False
) -> list[Bench]:
    """Measures a profile's step, eager and, if asked for, compiled; each with fresh networks."""
    if threads:
        torch.set_num_threads(threads)
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    task = build_task(profile, registry)
    results = []
    for compiled in (False, True) if compile_too else (False,):
        experiment = assemble(profile, task, stand_in_teacher(profile, registry, task, ROOT, [], chosen), chosen)
        try:
            results.append(bench(experiment, steps=steps, warmup=warmup, compiled=compiled))
        finally:
            experiment.close()
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
        self.number = 0
        self._epoch = 0
        self._batches = experiment.loader.epoch(0)
        self.sample = self._next()
        self.batch_size = self.sample.count

    def _next(self) -> Batch:
        """The next batch of full size."""
        while True:
            for batch in self._batches:
                if not hasattr(self, "batch_size") or batch.count == self.batch_size:
                    return batch
            self._epoch += 1
            self._batches = self.experiment.loader.epoch(self._epoch)

    def _synchronize(self) -> None:
        if self.experiment.device.type == "cuda":
            torch.cuda.synchronize(self.experiment.device)

    def _timed(self, work: Callable[[], object]) -> float:
        self._synchronize()
        started = time.perf_counter()
        work()
        self._synchronize()
        return time.perf_counter() - started

    def _count(self) -> int:
        """The next step's number; starts over before the run's end, where schedules are defined."""
        self.number = (self.number + 1) % self.step.total_steps
        return self.number

    def engine(self) -> float:
        """The step as training takes it."""
        number = self._count()
        return self._timed(lambda: self.step(self._next(), number))

    def bare(self) -> float:
        """The networks alone, on a batch that lies ready."""
        batch, task = self.sample, self.experiment.task
        optimizer = self.learner.optimizer if self.learner.pair is None else self.learner.pair

        def work() -> None:
            if self._teacher is not None:
                with torch.no_grad(), self._autocast():
                    self._teacher(batch.images)
            with self._autocast():
                terms = task.label_loss(task.forward(self._student, batch), batch)
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return self._timed(work)

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.experiment.device, self.experiment.settings.precision)

    def _guard_weights(self, batch: Batch) -> None:
        learner = self.learner
        learner.finite_check.gradients(0, batch, () if learner.pair is None else learner.pair.second)
        if learner.ema is not None:
            learner.finite_check.average(0, batch, learner.ema.model)

    def split(self) -> dict[str, float]:
        """The step in parts. The losses are cut off from the student by leaf tensors, so that the two backwards can be told apart."""
        step, learner = self.step, self.learner
        kept: dict[str, object] = {}
        times: dict[str, float] = {}
        step.begin(self._count())

        def data() -> None:
            kept["batch"] = self._next()

        times["data"] = self._timed(data)
        batch: Batch = kept["batch"]  # type: ignore[assignment]

        def teacher() -> None:
            kept["teacher"] = step.look(batch)

        times["teacher"] = self._timed(teacher)

        def forward() -> None:
            with self._autocast():
                kept["student"] = learner.objective.observe(batch)

        times["student"] = self._timed(forward)
        features: dict[str, Tensor] = kept["student"]  # type: ignore[assignment]
        leaves = {name: value.detach().requires_grad_() for name, value in features.items()}

        def loss() -> None:
            with self._autocast():
                losses = learner.objective.losses(batch, leaves, kept["teacher"], step.progress)  # type: ignore[arg-type]
            (losses.task + losses.distillation).backward()
            kept["losses"] = losses

        times["loss"] = self._timed(loss)
        times["guard"] = self._timed(lambda: learner.finite_check.losses(0, batch, kept["teacher"], kept["losses"]))  # type: ignore[arg-type]
        used = [name for name, leaf in leaves.items() if leaf.grad is not None]
        outputs, grads = [features[n] for n in used], [leaves[n].grad for n in used]
        twice = learner.pair is not None  # labels and distillation go back through the student one after the other
        times["student"] += self._timed(lambda: torch.autograd.backward(outputs, grads, retain_graph=twice))
        if twice:
            times["student"] += self._timed(lambda: torch.autograd.backward(outputs, grads))
        times["guard"] += self._timed(lambda: self._guard_weights(batch))
        times["optimizer"] = self._timed(learner.apply_gradients)
        return times
