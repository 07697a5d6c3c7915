"""Runs that lie on disk, compared from Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distillctl
from distillctl.commands.compare import compare
from distillctl.errors import ProfileError
from distillctl.rundir.answers import Answers, answers_file, write_answers
from distillctl.rundir.directory import RunDirectory

Made = Callable[..., Path]
SHOWN = {"metric": "top1", "names": {"top1": "top-1", "loss": "loss"}, "percent": ["top1"]}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def make(name: str, method: str, seed: int, top1: float, *, finished: bool = True, split: str = "test", **facts: Any) -> Path:
        """A run of three epochs, of which the second was chosen; a teacher makes it four times as expensive."""
        teacher = '[teacher]\nprofile = "t.toml"\n' if method != "none" else ""
        precision = facts.pop("precision", "fp32")
        resolved = f'seed = {seed}\n{teacher}[method]\nname = "{method}"\n[train]\nprecision = "{precision}"\n'
        state = {"name": "a", "digest": "", "method": method, "epochs": 3, "epoch": 3, "best_epoch": 2, "shown": SHOWN, "seconds": 9.0}
        path = Path("runs", name)
        run = RunDirectory.create(path, profile=b"", resolved=resolved, environment={"device": "cpu"}, state={**state, **facts})
        forwards = {"student": 110, "teacher": 0 if method == "none" else 100}
        for epoch, change in enumerate((-0.1, 0.0, -0.02), start=1):
            figures = {"top1": top1 + change + 0.01, "loss": 1 - top1, "count": 10}
            run.append({"phase": "main", "epoch": epoch, "val": figures, "forwards": forwards})
        ends = {name: 3 * count + 20 * bool(count) for name, count in forwards.items()}
        costs = {"student": {"macs": 5}, "teacher": {"macs": 9}, "forwards": ends, "images": 300}
        best, last = ({"epoch": epoch, "top1": top1 - less, "loss": 1 - top1 + less} for epoch, less in ((2, 0), (3, 0.05)))
        if finished:
            run.update(state="finished", costs=costs, result={"split": split, "chosen_on": "val", "best": best, "last": last})
        return path

    return make


@pytest.fixture
def three_seeds(made: Made) -> None:
    for seed in range(3):
        made(f"none-{seed}", "none", seed, 0.8 + seed / 100)
        made(f"kd-{seed}", "kd", seed, 0.85 + seed / 90)


@pytest.mark.usefixtures("three_seeds")
def test_the_figures_are_those_of_the_test_split_and_the_chosen_epoch(made: Made) -> None:
    made("kd-9", "kd", 9, 0.9, finished=False)
    found = distillctl.compare()
    assert (found.metric, found.words, found.percent) == ("top1", "top-1", True)
    assert (found.split, found.at, found.chosen_on) == ("test", "best", "val")
    assert [group.name for group in found.groups] == ["none", "kd"]
    assert found.groups[0].seeds == pytest.approx({0: 0.8, 1: 0.81, 2: 0.82})
    assert found.groups[1].against is not None
    assert found.groups[1].against.verdict == "better"
    assert found.notes == ["1 run left out, whose epochs are not finished: `runs/kd-9` (3 of 3)"]
    assert compare(at="last").groups[0].seeds == pytest.approx({0: 0.75, 1: 0.76, 2: 0.77})
    assert compare(split="val").groups[0].seeds == pytest.approx({0: 0.81, 1: 0.82, 2: 0.83})
    assert compare(metric="loss").groups[0].seeds == pytest.approx({0: 0.2, 1: 0.19, 2: 0.18})
    assert compare(metric="loss").lower


def test_a_teacher_that_lies_beside_its_students_is_left_out_unless_it_is_named(made: Made) -> None:
    teacher = made("teacher", "none", 0, 0.99)
    made("none", "none", 0, 0.8)
    made("kd", "kd", 0, 0.9, teacher_run=str(teacher.absolute()))
    found = compare()
    assert [group.mean for group in found.groups] == [0.8, 0.9]
    assert found.notes[0] == "`runs/teacher` left out: the teacher of others; name a run to have it, too"
    assert compare(["runs/teacher", "runs/kd"]).groups[0].mean == 0.99


def test_what_a_sweep_did_not_make_is_named(made: Made) -> None:
    for seed in range(2):
        made(f"sweep/kd-{seed}", "kd", seed, 0.9)
    states = [("kd", 0, "finished"), ("kd", 1, "finished"), ("kd", 2, "failed"), ("dkd", 0, "waiting")]
    cells = [{"name": name, "seed": seed, "run": f"{name}-{seed}", "state": state} for name, seed, state in states]
    Path("runs/sweep/sweep.json").write_text(json.dumps({"cells": cells}))
    told = "2 runs of the sweep `runs/sweep` not there: `kd` (failed), `dkd` (waiting)"
    assert compare("sweep").notes == [told]
    for damaged in ("{", "[]", '{"cells": [1]}'):
        Path("runs/sweep/sweep.json").write_text(damaged)
        assert compare("sweep").notes == []


@pytest.mark.usefixtures("three_seeds")
def test_damaged_runs_are_named(made: Made) -> None:
    (Path("runs/kd-0") / "run.json").write_text("{")
    found = compare()
    assert len(found.groups[1].seeds) == 2
    assert found.notes[0].startswith("`runs/kd-0` is left out: ")


def test_runs_without_a_test_split_are_compared_on_val(made: Made) -> None:
    for seed in range(2):
        made(f"a-{seed}", "none", seed, 0.8, split="val")
    assert compare().split == "val"
    made("b", "none", 2, 0.9)
    made("c", "none", 3, 0.95, split="")
    found = compare()
    assert (found.split, len(found.groups[0].seeds)) == ("val", 4), "all have it"
    assert compare(split="test").notes == ["3 runs left out, without `top1` on test: `runs/c`, `runs/a-1`, `runs/a-0`"]


def test_what_cannot_be_compared_is_said(made: Made) -> None:
    made("a", "none", 0, 0.8, finished=False)
    with pytest.raises(ProfileError, match="none of the runs is finished"):
        compare()
    made("b", "none", 0, 0.8)
    for more, message in (
        ({"metric": "top11"}, "no run has a figure `top11` on test or val"),
        ({"per_compute": True, "split": "test"}, "figures at equal compute are of the best epoch on the validation split"),
        ({"per_compute": True, "at": "last"}, "figures at equal compute"),
    ):
        with pytest.raises(ProfileError, match=message):
            compare(**more)  # type: ignore[arg-type]
    made("c", "none", 1, 0.8, shown={"metric": "map", "names": {"map": "AP"}, "percent": []})
    with pytest.raises(ProfileError, match="the runs have other figures: `"):
        compare()
    assert compare(metric="top1").groups[0].mean == 0.8


@pytest.mark.usefixtures("three_seeds")
def test_equal_compute_stops_at_what_the_cheapest_spent(made: Made) -> None:
    """A run from labels alone has 5·(350 + 2·300) MACs; an epoch with a teacher 5·(110 + 200) + 900, so that one of the three fits."""
    found = compare(per_compute=True)
    assert (found.budget, found.split) == (4750, "val")
    assert found.groups[0].seeds == pytest.approx({0: 0.81, 1: 0.82, 2: 0.83}), "whole"
    assert found.groups[1].seeds == pytest.approx({seed: 0.76 + seed / 90 for seed in range(3)}), "the first epoch"
    assert [group.compute.macs for group in found.groups] == [4750, 4750 + 9 * 320]
    assert found.groups[1].against is not None
    assert found.groups[1].against.mean < 0


@pytest.mark.usefixtures("three_seeds")
def test_equal_compute_needs_recorded_compute(made: Made) -> None:
    run = RunDirectory.open(made("old", "kd", 7, 0.8))
    run.update(costs={})
    with pytest.raises(ProfileError, match="the compute of `runs/old` is not known"):
        compare(per_compute=True)


def answered(path: Path, right: str, *, labels: int = 0) -> None:
    """One image for each letter: `x` is right."""
    label = np.full(len(right), labels)
    classes = np.stack([label + [0 if one == "x" else 1 for one in right], label + 2], axis=1)
    ones = np.ones(len(right), np.float32)
    write_answers(answers_file(path, "test"), Answers(np.arange(len(right)), label, classes, np.stack([ones, ones], 1), ones))


def test_single_runs_are_compared_by_the_answers_that_they_left(made: Made) -> None:
    one, other = made("none", "none", 0, 0.8), made("kd", "kd", 0, 0.9)
    answered(one, "xxxx....--------x")
    answered(other, "....xxxxxxxxxxxxx")
    test = compare().groups[1].against
    assert test is not None
    assert test.mcnemar is not None
    assert (test.mcnemar.only_first, test.mcnemar.only_second) == (4, 12)
    assert (test.verdict, test.adjusted) == ("", test.mcnemar.p)
    assert compare(metric="loss").notes == ["no McNemar's test of `kd`: it compares answers that are right, and not loss"]
    assert compare(at="last").notes == ["no McNemar's test of `kd`: answers are kept of the chosen epoch alone"]
    refused = ["no McNemar's test of `kd`: the two runs answered different images"]
    answered(other, "....xxxx")
    assert compare().notes == refused
    answered(other, "....xxxxxxxxxxxxx", labels=1)
    assert compare().notes == refused
    answered(other, "....xxxxxxxxxxxxx")
    RunDirectory.open(other).update(data_listing={"test": "17 other images"})
    assert compare().notes == ["`kd` and `none` differ in `data: test`, too, which may be why their figures do", *refused]
    RunDirectory.open(other).update(data_listing={})
    answers_file(other, "test").unlink()
    assert "no McNemar's test of `kd`: `runs/kd/predictions/test-best.npz` cannot be read" in compare().notes[0]


def test_a_run_and_its_copy_are_not_different(made: Made) -> None:
    answered(made("kd", "kd", 0, 0.9), "xx..")
    answered(made("copy", "kd", 0, 0.9), "xx..")
    found = compare(control="runs/copy")
    assert [group.against for group in found.groups] == [None]


@pytest.mark.usefixtures("three_seeds")
def test_comparing_loads_neither_torch_nor_all_of_scipy(tmp_path: Path) -> None:
    code = "import sys, distillctl; distillctl.compare(); print([m for m in ('torch', 'scipy.stats', 'scipy.special') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "['scipy.special']"


@pytest.mark.slow
def test_five_hundred_runs_take_seconds(made: Made) -> None:
    for number in range(500):
        made(f"{number}", ("none", "kd")[number % 2], number // 2, 0.8 + number % 7 / 100)
    start = time.process_time()
    assert len(compare().groups[1].seeds) == 250
    assert time.process_time() - start < 5
