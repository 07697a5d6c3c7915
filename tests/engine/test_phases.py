"""Phases: what is trained in them, how they are recorded, and resuming in the middle of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Method, Phase, Progress, Setup, Wants
from distillctl.api.tracker import Tracker
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.errors import PluginError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


class Early(Method):
    """Trains `first` on its own, then the student's body with `second`; `third` in the main part."""

    @classmethod
    def wants(cls, options: Any) -> Wants:
        return Wants(student=("last",), teacher=("pooled",))

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        width = setup.student.channels("last")
        self.first, self.second, self.third = (nn.Linear(width, 3) for _ in range(3))

    def phases(self) -> list[Phase]:
        return [Phase("warm", 2, lr=0.01, modules=("first",)), Phase("body", 1, student=True, modules=("second",), weighted=True)]

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        if phase == "warm":
            assert not student
            return self.first(teacher["pooled"][:, : self.first.in_features]).square().mean()
        return self.second(student["last"].mean((2, 3))).square().mean()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        return {"third": self.third(student["last"].mean((2, 3))).square().mean(), "first": self.first(student["last"].mean((2, 3))).mean()}


class Before(Early):
    """The same, with nothing to do afterwards."""

    in_main = False

    def forward(self, *args: Any) -> dict[str, Tensor]:
        raise AssertionError("not in the main part")


class Twice(Early):
    """Two phases of one name, which a checkpoint could not tell apart."""

    def phases(self) -> list[Phase]:
        return [Phase("warm", 1, modules=("first",)), Phase("warm", 2, modules=("second",))]


def new_run(path: Path) -> RunDirectory:
    return RunDirectory.create(path, profile=b"", resolved="", environment={}, state={"digest": "d" * 64})


def snapshot(made: Experiment) -> dict[str, Tensor]:
    return copy.deepcopy({**made.model.state_dict(), **{f"m.{k}": v for k, v in made.objective.methods.state_dict().items()}})


class Spy(Tracker):
    """Keeps what is trained in every epoch: the names that differ from the epoch before."""

    def __init__(self, made: Experiment) -> None:
        super().__init__()
        self.made, self.before, self.changed, self.records = made, snapshot(made), [], []

    def epoch(self, record: Mapping[str, Any]) -> None:
        now = snapshot(self.made)
        self.changed.append({name for name, value in now.items() if not torch.equal(value, self.before[name])})
        self.before = now
        self.records.append(record)


def early(experiment: Make, cls: type[Method] = Early, **changes: Any) -> Experiment:
    return experiment(methods=[("early", cls, None, 2.0)], **changes)


def test_two_phases_of_one_name_are_refused(experiment: Make) -> None:
    with pytest.raises(PluginError, match="`early` has two phases called `warm`"):
        early(experiment, Twice)


def test_every_phase_trains_what_it_names(experiment: Make, tmp_path: Path) -> None:
    made = early(experiment, epochs=1)
    spy = Spy(made)
    Loop(made, new_run(tmp_path / "run"), spy).train()
    warm, again, body, main = spy.changed
    assert warm == again == {"m.early.first.weight", "m.early.first.bias"}
    assert {name for name in body if name.startswith("m.")} == {"m.early.second.weight", "m.early.second.bias"}
    assert "stage3.0.weight" in body
    assert "stage3.1.running_mean" in body
    assert not {name for name in body if name.startswith("fc.")}, "the classifier is no part of the body"
    assert {name for name in main if name.startswith("m.")} == {"m.early.third.weight", "m.early.third.bias"}
    assert {"fc.weight", "fc.bias", "stage1.0.weight"} <= main


def test_record_names_phases_and_counts_within_them(experiment: Make, tmp_path: Path) -> None:
    made = early(experiment, epochs=2)
    spy = Spy(made)
    run = new_run(tmp_path / "run")
    Loop(made, run, spy).train()
    records = run.records()
    assert records == spy.records
    assert [(r["phase"], r["epoch"]) for r in records] == [
        ("early.warm", 1), ("early.warm", 2), ("early.body", 1), ("main", 1), ("main", 2),
    ]  # fmt: skip
    assert [r["lr"] for r in records] == [0.01, 0.01, 0.05, 0.05, 0.05]
    assert [set(r["terms"]) for r in records[1:4]] == [{"early.warm"}, {"early.body"}, {"task", "early.third", "early.first"}]
    assert records[0]["total"] == records[0]["terms"]["early.warm"], "not weighted"
    assert records[2]["total"] == pytest.approx(2 * records[2]["terms"]["early.body"]), "weighted"
    assert records[1]["terms"]["early.warm"] < records[0]["terms"]["early.warm"]
    assert all(("val" in r, "train_top1" in r) == (r["phase"] == "main",) * 2 for r in records)
    assert run.info()["epoch"] == 5
    assert run.info()["best_epoch"] == max(records[3:], key=lambda r: (r["val"]["top1"], r["epoch"]))["epoch"]


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_resuming_is_exact_wherever_it_stopped(experiment: Make, watcher: Any, tmp_path: Path, stop: int) -> None:
    """In the middle of a phase, at its end, and in the main part; with a moving average that begins with the main part."""

    class Stop(Exception):
        pass

    class Stopper:
        def __init__(self) -> None:
            self.epochs = 0

        def batch(self, *args: object) -> None: ...

        def epoch(self, record: dict[str, Any]) -> None:
            self.epochs += 1
            if self.epochs == stop:
                raise Stop("of the test")

    whole = early(experiment, epochs=2, ema=0.9, ema_ramp=5.0)
    Loop(whole, new_run(tmp_path / "whole"), watcher).train()
    first = early(experiment, epochs=2, ema=0.9, ema_ramp=5.0)
    with pytest.raises(Stop, match="of the test"):
        Loop(first, new_run(tmp_path / "cut"), Stopper()).train()
    second = early(experiment, epochs=2, ema=0.9, ema_ramp=5.0)
    run = RunDirectory.open(tmp_path / "cut")
    loop = Loop(second, run, watcher)
    assert loop.position.epoch == stop
    loop.train()
    a, b = snapshot(whole), snapshot(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    times = ("seconds", "per_second")
    kept = [[{k: v for k, v in r.items() if not k.endswith(times)} for r in RunDirectory(tmp_path / f).records()] for f in ("whole", "cut")]
    assert kept[0] == kept[1]


def test_a_method_of_phases_alone_costs_nothing_afterwards(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    made = early(experiment, Before, epochs=1)
    ran: list[str] = []
    loop = Loop(made, new_run(tmp_path / "run"), watcher)
    assert made.teacher is not None
    made.network.register_forward_hook(lambda *_: ran.append(loop.step.part.name))
    loop.train()
    assert set(ran) == {"early.warm", "early.body"}, "the teacher rests where nobody needs it"
    assert set(watcher.records[-1]["terms"]) == {"task"}
