from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Phase, Progress, Setup
from distillctl.api.options import Options
from distillctl.api.tracker import Tracker
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import KDOptions
from distillctl.distributed.process_group import ProcessGroup
from distillctl.distributed.stop_signals import SIGNALS
from distillctl.engine import checkpoint
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.errors import DataError, ProfileError, RunError, StoppedError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


def new_run(path: Path) -> RunDirectory:
    return RunDirectory.create(path, profile=b"", resolved="", environment={}, state={"digest": "d" * 64})


def without_times(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.endswith(("seconds", "per_second"))} for line in RunDirectory(run).records()]


def weights(experiment: Experiment) -> Tensor:
    return torch.cat([v.flatten().double() for v in experiment.model.state_dict().values()])


def best(run: Path) -> Tensor:
    return torch.cat([v.flatten().double() for v in checkpoint.load(run / "checkpoints" / "best.pt")["student"].values()])


class Poison(Method):
    """Is NaN from the third epoch on."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return torch.where(progress.epoch > 2, float("nan"), 1.0) * student["logits"].mean()


def test_it_learns_and_leaves_the_run_directory(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    made = experiment(epochs=6, keep_every=2)
    run = new_run(tmp_path / "run")
    Loop(made, run, watcher).train()
    records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["terms"]["task"] < records[0]["terms"]["task"]
    assert records[-1]["val"]["top1"] > 0.5
    assert set(records[0]["terms"]) == {"task", "kd"}
    names = ["best.pt", "epoch-0002.pt", "epoch-0004.pt", "epoch-0006.pt", "last.pt", "previous.pt"]
    assert {p.name for p in (run.path / "checkpoints").iterdir()} == {*names, *(f"{name}.sha256" for name in names)}
    assert watcher.records == records
    top = max(reversed(records), key=lambda r: r["val"]["top1"])["epoch"]
    assert checkpoint.load(run.best)["epoch"] == top == run.info()["best_epoch"]


def test_teacher_and_its_statistics_do_not_change(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    made = experiment()
    assert made.teacher is not None
    before = {k: v.clone() for k, v in made.network.model.state_dict().items()}
    Loop(made, new_run(tmp_path / "run"), watcher).train()
    assert all(torch.equal(v, before[k]) for k, v in made.network.model.state_dict().items())
    assert all(p.grad is None for p in made.network.parameters())


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_continued_run_is_bit_equal(experiment: Make, watcher: Any, tmp_path: Path, stop: int, ema: float) -> None:
    straight = experiment(epochs=5, ema=ema)
    Loop(straight, new_run(tmp_path / "a"), watcher).train()
    run = new_run(tmp_path / "b")
    first = experiment(epochs=5, ema=ema)
    interrupted = Loop(first, run, _StopsAfter(stop))
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        interrupted.train()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "half a li')
    second = experiment(epochs=5, ema=ema)
    loop = Loop(second, run, watcher)
    assert loop.position.epoch == stop
    loop.train()
    assert torch.equal(weights(straight), weights(second))
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")
    assert torch.equal(best(tmp_path / "a"), best(tmp_path / "b"))


class _Cut(BaseException):
    """The process ends here."""


class _LearnsFirst(Method):
    """Has a layer that a phase of its own trains."""

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        self.layer = torch.nn.Linear(4, 4)

    def phases(self) -> list[Phase]:
        return [Phase("own", 1, modules=("layer",))]

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return (self.layer(teacher["logits"]) - 1).square().mean()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return (self.layer(teacher["logits"]) - student["logits"]).square().mean()


@pytest.mark.parametrize(("ema", "phase"), [(0.0, False), (0.9, False), (0.9, True)])
def test_a_run_cut_after_any_step_ends_with_the_same_bytes(
    experiment: Make, watcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_options: Options, ema: float, phase: bool
) -> None:
    """Saved after every step, of a phase too, and cut after any of these saves."""
    methods: list[Any] = [("kd", KD, KDOptions(), 0.5)] + ([("first", _LearnsFirst, no_options, 1.0)] if phase else [])
    settings: dict[str, Any] = {"methods": methods, "epochs": 2, "ema": ema, "save_every": 0.0}
    straight = experiment(**settings)
    saves: list[int] = []
    save = checkpoint.save_last

    def counting(run: RunDirectory, state: dict[str, Any]) -> None:
        save(run, state)
        saves.append(state["position"]["step"])
        if len(saves) == cut:
            raise _Cut("of the test")

    monkeypatch.setattr(checkpoint, "save_last", counting)
    cut = 0
    Loop(straight, new_run(tmp_path / "straight"), watcher).train()
    steps = list(saves)
    assert steps == [1, 2, 3, 0] * (3 if phase else 2)
    expected = checkpoint.load(tmp_path / "straight" / "checkpoints" / "last.pt")
    untimed = without_times(tmp_path / "straight")
    for number in range(1, len(steps)):
        saves.clear()
        cut = number
        run = new_run(tmp_path / str(number))
        with pytest.raises(_Cut, match="of the test"):
            Loop(experiment(**settings), run, watcher).train()
        cut = 0
        second = experiment(**settings)
        Loop(second, run, watcher).train()
        assert torch.equal(weights(straight), weights(second)), number
        found = checkpoint.load(run.last)
        for part in ("student", "methods"):
            assert all(torch.equal(found[part][k], expected[part][k]) for k in expected[part]), (number, part)
        assert without_times(run.path) == untimed, number


def test_going_back_to_the_checkpoint_before_ends_with_the_same_bytes(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    straight, run = experiment(epochs=4, ema=0.9), new_run(tmp_path / "run")
    Loop(straight, new_run(tmp_path / "straight"), watcher).train()
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        Loop(experiment(epochs=4, ema=0.9), run, _StopsAfter(3)).train()
    run.last.write_bytes(run.last.read_bytes()[:-1])
    second = experiment(epochs=4, ema=0.9)
    with pytest.raises(DataError, match="2 epochs and 0 steps done"):
        Loop(second, run, watcher)
    loop = Loop(second, run, watcher, previous=True)
    assert loop.position.epoch == 2
    loop.train()
    assert torch.equal(weights(straight), weights(second))
    assert [r["epoch"] for r in run.records()] == [1, 2, 3, 4]


@pytest.mark.parametrize("where", ["training", "evaluation"])
@pytest.mark.parametrize(("number", "code"), [(number, 130 if number == signal.SIGINT else 143) for number in SIGNALS])
def test_a_signal_saves_and_stops(
    experiment: Make, watcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int, code: int
) -> None:
    """In the second step of the second epoch, or while it is evaluated."""
    straight, run = experiment(epochs=3, save_every=math.inf), new_run(tmp_path / "run")
    Loop(straight, new_run(tmp_path / "straight"), watcher).train()
    first = experiment(epochs=3, save_every=math.inf)
    loop = Loop(first, run, watcher)
    calls: list[str] = []

    def spied(name: str, function: Callable[..., Any], at: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            if name == where and calls.count(name) == at:
                os.kill(os.getpid(), number)
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(first.objective, "losses", spied("training", first.objective.losses, 5))
    monkeypatch.setattr(first, "evaluation", spied("evaluation", first.evaluation, 2))
    with pytest.raises(StoppedError, match=rf"stopped by {signal.Signals(number).name} after 1 epoch and [23] of 3 steps") as caught:
        loop.train()
    assert caught.value.exit_code == code
    position = checkpoint.load(run.last)["position"]
    assert (position["epoch"], position["step"]) == (1, 2 if where == "training" else 3)
    second = experiment(epochs=3)
    Loop(second, run, watcher).train()
    assert torch.equal(weights(straight), weights(second))
    assert len(run.records()) == 3


class _StopsAfter(Tracker):
    """Interrupts when so many epochs are saved."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def epoch(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt("of the test")


def test_without_validation_the_last_epoch_is_the_best_and_test_chooses_nothing(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    loop = Loop(experiment(val=False, epochs=4), run, watcher)
    position = loop.train()
    assert not loop.chooses
    assert position.best_epoch == 4
    assert checkpoint.load(run.best)["epoch"] == 4
    assert all("test" in r and "val" not in r for r in watcher.records)


def test_best_is_chosen_on_validation_even_if_evaluated_rarely(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    Loop(experiment(epochs=5, evaluate_every=2), run, watcher).train()
    found = {r["epoch"]: r["val"]["top1"] for r in watcher.records if "val" in r}
    assert list(found) == [2, 4, 5]
    assert run.info()["best_epoch"] == max(found, key=lambda epoch: (found[epoch], epoch))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    experiment: Make, watcher: Any, tmp_path: Path, no_options: Options
) -> None:
    run = new_run(tmp_path / "run")
    loop = Loop(experiment(methods=[("poison", Poison, no_options, 1.0)], epochs=5), run, watcher)
    with pytest.raises(RunError, match=r"`poison` at step 7"):
        loop.train()
    state = checkpoint.load(run.last)
    assert state["position"]["epoch"] == 2
    assert all(v.isfinite().all() for v in state["student"].values())


def test_a_checkpoint_of_another_profile_or_a_damaged_one_is_refused(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    Loop(experiment(epochs=1), run, watcher).train()
    other = experiment(epochs=1)
    other.digest = "e" * 64
    with pytest.raises(DataError, match="another profile"):
        Loop(other, run, watcher)
    run.last.write_bytes(run.last.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged"):
        Loop(experiment(epochs=1), run, watcher)


def test_clipping_bounds_the_norm_of_all_gradients(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    free, tight = experiment(epochs=1), experiment(epochs=1, clip_grad_norm=1e-6)
    start = weights(tight)
    for made, name in ((free, "free"), (tight, "tight")):
        Loop(made, new_run(tmp_path / name), watcher).train()
    moved = [(p - q).abs().max() for p, q in zip(free.model.parameters(), tight.model.parameters(), strict=True)]
    assert max(moved) > 1e-4
    still = torch.cat([p.flatten().double() for p in tight.model.parameters()])
    fresh = torch.cat([p.flatten().double() for p in experiment(epochs=1).model.parameters()])
    # Weight decay alone moves a weight by lr · 5e-4 of itself at each of the three steps; the clipped gradients by next to nothing.
    assert (still - fresh).abs().max() < 3 * 0.05 * 5e-4 * fresh.abs().max() * 2
    assert len(start) > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_reaches_the_networks_but_not_the_losses(experiment: Make, watcher: Any, tmp_path: Path, precision: str) -> None:
    made = experiment(epochs=1, precision=precision)
    seen: set[torch.dtype] = set()
    made.model.fc.register_forward_hook(lambda _m, _i, out: seen.add(out.dtype) if out.requires_grad else None)  # type: ignore[operator, union-attr]
    terms: set[torch.dtype] = set()
    losses = made.objective.losses

    def spy(*args: Any) -> Any:
        found = losses(*args)
        terms.update(v.dtype for v in (found.task, found.distillation, *found.terms.values()))
        return found

    made.objective.losses = spy  # type: ignore[method-assign]
    Loop(made, new_run(tmp_path / "run"), watcher).train()
    assert seen == {torch.float32 if precision == "fp32" else torch.bfloat16}
    assert terms == {torch.float32}


@pytest.mark.parametrize(("every", "end"), [(1, 5), (2, 6)])
def test_a_run_with_patience_stops_and_a_resumed_one_as_well(
    experiment: Make, watcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, end: int
) -> None:
    """The best epoch is the second; three more bring nothing."""
    settings: dict[str, Any] = {"epochs": 9, "patience": 3, "evaluate_every": every}
    figures = {1: 0.4, 2: 0.9}

    def evaluated(loop: Loop) -> dict[str, Any]:
        return {"val": {"top1": figures.get(loop.position.epoch + 1, 0.5)}}

    monkeypatch.setattr(Loop, "_evaluate", evaluated)
    straight = Loop(experiment(**settings), new_run(tmp_path / "straight"), watcher)
    assert straight.train().epoch == end
    assert straight.position.best_epoch == 2
    run = new_run(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        Loop(experiment(**settings), run, _StopsAfter(3)).train()
    assert Loop(experiment(**settings), run, watcher).train().epoch == end
    again = Loop(experiment(**settings), run, watcher)  # ended between its last epoch and the evaluation of its student
    assert again.train().epoch == end
    assert Loop(experiment(**{**settings, "patience": 8}), new_run(tmp_path / "patient"), watcher).train().epoch == 9


def test_patience_needs_a_validation_split(experiment: Make) -> None:
    with pytest.raises(ProfileError, match=r"`train.patience` needs a validation split"):
        experiment(val=False, patience=3)


@pytest.mark.parametrize("compiled", [False, True])
def test_processes_wait_for_each_other_where_steps_are_compiled(experiment: Make, watcher: Any, tmp_path: Path, compiled: bool) -> None:
    """After the first step and the last, whose batch is shorter: compiling takes one longer than others wait in the middle of training."""
    calls: list[tuple[int, bool]] = []

    class Counted(ProcessGroup):
        def all_gather(self, value: Any, *, patient: bool = False) -> list[Any]:
            if value is None:
                calls.append((loop.position.step, patient))
            return [value]

    made = experiment(epochs=2)
    loop = Loop(made, new_run(tmp_path / "run"), watcher)
    made.settings = replace(made.settings, compiled=compiled)  # the step is there already, and is not
    made.processes = Counted()
    loop.train()
    assert calls == ([(1, True), (3, True)] * 2 if compiled else [])
