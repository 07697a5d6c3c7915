"""Sweeps: which runs they are made of, and what becomes of them when some fail, and when the sweep is stopped or killed.

A run is trained by a small script in place of `distillctl train`, which keeps its run directory and its lock as that does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distillctl.commands import sweep_runner, sweep_search
from distillctl.commands.sweep import FILE, Book, Plan, plan, rows, seconds_left, state_of, submit
from distillctl.commands.sweep_runner import Event, Listed, Runner
from distillctl.errors import DataError, PluginError, ProfileError, RunError
from distillctl.plugin.registry import Registry
from distillctl.profile.schema import SweepTable
from distillctl.profile.sweep import settle
from distillctl.slurm.request import Request

PROFILE = """
[dataset]
name = "digits"
limit = 300
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
[method]
name = "kd"
[train]
epochs = 4
"""
TEACHER = """
[dataset]
name = "digits"
[student]
name = "resnet14"
[train]
epochs = 2
"""

pytestmark = pytest.mark.posix

PYTHON = sys.executable
TRAIN = Path(__file__).with_name("stand_in_train.py")

COMMAND = """\
import sys
from distillctl.cli import main
from distillctl.commands import sweep_search
sweep_search.check_metric = lambda made: None
sys.executable = "./python"
main(sys.argv[1:])
"""

HOLD = """\
import sys
from pathlib import Path
from distillctl.rundir.lock import locked
with locked(Path("all")):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a profile, its teacher's, and the script that trains."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "p.toml").write_text(PROFILE)
    (tmp_path / "teacher.toml").write_text(TEACHER)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{PYTHON}" "{TRAIN}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sweep_runner.sys, "executable", str(script))
    return tmp_path


def planned(*grid: str, out: str | None = "all", base: dict[str, Any] | None = None, **more: Any) -> Plan:
    request = replace(Request("p.toml", device="cpu"), **(base or {}))
    return plan(request, settle(SweepTable(), grid=grid, **more), Registry.load(), None if out is None else Path(out))


def titles(made: Plan) -> list[str]:
    return [cell.title for cell in made.cells]


def trained(made: Plan, **more: Any) -> list[Event]:
    """What is told when the sweep runs."""
    events: list[Event] = []
    Runner(made, Listed(made.cells), events.append, **more).run()
    return [event for event in events if event.kind != "warning"]


def epochs() -> Counter[str]:
    """How often each epoch of each run was trained."""
    return Counter(Path("epochs").read_text().split("\n")[:-1]) if Path("epochs").exists() else Counter()


def states(folder: str = "all") -> dict[str, str]:
    return {f"{cell['name']}, seed {cell['seed']}": cell["state"] for cell in json.loads(Path(folder, FILE).read_text())["cells"]}


def until(true: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


# -- which runs ---------------------------------------------------------------------------------------------------------


def test_every_combination_has_every_seed(folder: Path) -> None:
    made = planned("method=kd,dkd", "method.temperature=2,4", seeds="0,1")
    assert titles(made) == [f"{m} temperature={t}, seed {s}" for m in ("kd", "dkd") for t in (2, 4) for s in (0, 1)]
    assert len({cell.request.digest for cell in made.cells}) == 8
    first = made.cells[0]
    assert first.path == Path("all") / f"kd_temperature=2-s0-{first.request.digest[:8]}"
    for cell in made.cells:
        assert cell.request.load(Registry.load()).digest == cell.request.digest, "the process trains what was checked"
    assert not Path("all").exists()


def test_there_is_one_control_for_every_seed_and_value_that_matters_to_it(folder: Path) -> None:
    made = planned("method=kd,dkd", "method.temperature=2,4", "optimizer.lr=0.1,0.2", seeds="0,1", control=True)
    assert titles(made)[-4:] == [f"none lr={lr}, seed {s}" for lr in (0.1, 0.2) for s in (0, 1)]
    assert len(made.cells) == 2 * 2 * 2 * 2 + 4


def test_a_control_does_without_what_teaches(folder: Path) -> None:
    base = {"overrides": ("method.temperature=2", "teacher.allow_untrained=true", "train.epochs=3"), "teacher": "teacher.toml"}
    made = planned("teacher.overrides.train.epochs=1,2", control=True, base=base)
    assert titles(made) == ["kd epochs=1, seed 0", "kd epochs=2, seed 0", "none, seed 0"]
    control = made.cells[-1].request
    assert (control.overrides, control.teacher, control.method) == (("train.epochs=3",), None, "none")


def test_methods_that_learn_from_labels_alone_have_no_values_of_methods(folder: Path) -> None:
    made = planned("method=none,kd", "method.temperature=1,2", control=True)
    assert titles(made) == ["none, seed 0", "kd temperature=1, seed 0", "kd temperature=2, seed 0"]
    assert made.notes == []


def test_runs_that_are_the_same_are_told_and_trained_once(folder: Path) -> None:
    made = planned("train.workers=0,1", "method.temperature=2")
    assert titles(made) == ["kd workers=0 temperature=2, seed 0"]
    assert made.notes == [
        "`kd workers=1 temperature=2, seed 0` is the same run as `kd workers=0 temperature=2, seed 0`, which is trained once"
    ]


def test_teachers_can_be_values(folder: Path) -> None:
    Path("other.toml").write_text(TEACHER.replace("epochs = 2", "epochs = 3"))
    made = planned("teacher=teacher.toml,other.toml", control=True)
    assert titles(made) == ["kd teacher=teacher.toml, seed 0", "kd teacher=other.toml, seed 0", "none, seed 0"]
    assert [cell.request.teacher for cell in made.cells] == ["teacher.toml", "other.toml", None]
    with pytest.raises(ProfileError, match="--grid teacher"):
        planned("teacher=nowhere.toml,other.toml")


def test_keys_with_the_same_last_part_are_written_out(folder: Path) -> None:
    made = planned("train.epochs=1", "teacher.overrides.train.epochs=2")
    assert titles(made) == ["kd train.epochs=1 teacher.overrides.train.epochs=2, seed 0"]


def test_all_problems_are_told_with_the_runs_that_have_them(folder: Path) -> None:
    with pytest.raises(ProfileError) as raised:
        planned("method=kd,dkd,kdd", "method.temperature=2,-1", "train.epochs=0,1", seeds="0,1")
    messages = [problem.message for problem in raised.value.problems]
    assert len(messages) == len(set(messages))
    text = "\n".join(messages)
    assert "`kd temperature=2 epochs=0`, `kd temperature=-1 epochs=0`, `dkd temperature=2 epochs=0` and 3 more: " in text
    assert "kdd" in text
    assert "temperature=-1" in text
    with pytest.raises(ProfileError) as raised:
        planned("train.epochz=1,2")
    assert [(p.message, p.where) for p in raised.value.problems] == [("unknown key `epochz` in [train]", "--grid train.epochz")]


def test_a_key_without_effect_is_told(folder: Path) -> None:
    with pytest.raises(ProfileError, match=r"`schedule\.gamma` has no effect"):
        planned("schedule.gamma=0.1,0.2", "schedule.name=cosine")


def test_the_folder_is_named_after_profile_keys_and_what_else_is_set(folder: Path) -> None:
    names = [
        planned("method.temperature=1", out=None).folder,
        planned("method.temperature=1,2", seeds="1,2", control=True, jobs=2, out=None).folder,
        planned("method.weight=1", out=None).folder,
        planned("method.temperature=1", out=None, base={"overrides": ("train.epochs=3",)}).folder,
        planned(seeds="0,1", out=None).folder,
    ]
    assert names[0] == names[1], "more values belong to the same sweep"
    assert len(set(names)) == 4
    assert str(names[0]).startswith("runs/p-sweep-")
    assert str(names[4]).startswith("runs/p-seeds-")
    search = [
        planned("optimizer.lr=1,2", seeds=seeds, optimize="top1", trials=n, out=None).folder for seeds, n in (("0", 3), ("0", 4), ("1", 3))
    ]
    assert search[0] == search[1] != search[2]


def test_a_folder_with_something_else_is_refused(folder: Path) -> None:
    Path("other").mkdir()
    Path("other/thesis.tex").touch()
    with pytest.raises(ProfileError, match="`other` exists and is not a sweep"):
        planned("method.temperature=1", out="other")
    Path("other", FILE).write_text('{"profile": "q.toml", "cells": []}')
    with pytest.raises(ProfileError, match=r"is a sweep of another profile, `q\.toml`"):
        planned("method.temperature=1", out="other")
    Path("other", FILE).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        planned("method.temperature=1", out="other")
    Path("other", FILE).write_text('{"cells": [1]}')
    with pytest.raises(DataError, match="does not describe a sweep"):
        planned("method.temperature=1", out="other")


# -- what becomes of them ---------------------------------------------------------------------------------------------


def test_runs_are_trained_once_and_the_same_command_does_what_is_missing(folder: Path) -> None:
    made = planned("optimizer.lr=0.1,0.2", seeds="0,1")
    events = trained(made)
    assert [(event.kind, event.cell.title) for event in events] == [
        (kind, cell.title) for cell in made.cells for kind in ("begins", "finished")
    ]
    assert [event.done for event in events] == [0, 1, 1, 2, 2, 3, 3, 4]
    before = Path("all", FILE).stat().st_mtime_ns
    assert trained(planned("optimizer.lr=0.1,0.2", seeds="0,1")) == []
    assert Path("all", FILE).stat().st_mtime_ns == before
    more = planned("optimizer.lr=0.2,0.4", seeds="1,2", control=True)
    assert {event.cell.title for event in trained(more)} == {
        "kd lr=0.2, seed 2", "kd lr=0.4, seed 1", "kd lr=0.4, seed 2",
        "none lr=0.2, seed 1", "none lr=0.2, seed 2", "none lr=0.4, seed 1", "none lr=0.4, seed 2",
    }  # fmt: skip
    assert set(epochs().values()) == {1}
    written = json.loads(Path("all", FILE).read_text())
    assert (written["profile"], written["grid"], written["seeds"], written["control"]) == (
        "p.toml",
        {"optimizer.lr": [0.1, 0.2, 0.4]},
        [0, 1, 2],
        True,
    )
    assert len(written["cells"]) == 11
    assert {cell["state"] for cell in written["cells"]} == {"finished"}
    cell = written["cells"][0]
    assert {key: cell[key] for key in ("name", "values", "seed", "error")} == {
        "name": "kd lr=0.1", "values": {"optimizer.lr": 0.1}, "seed": 0, "error": "",
    }  # fmt: skip
    assert Path("all", cell["run"], "run.json").is_file()


def test_a_grid_with_one_more_key_finds_the_runs_that_are_there(folder: Path) -> None:
    trained(planned("optimizer.lr=0.2"))
    made = planned("optimizer.lr=0.2", "method.temperature=4,8")
    assert [state_of(cell, Book(made)) for cell in made.cells] == ["finished", "new"], "4 is kd's default"


def test_a_failed_run_is_named_and_stops_no_other(folder: Path) -> None:
    made = planned("optimizer.lr=3,5,0.2")
    events: list[Event] = []
    with pytest.raises(RunError) as raised:
        Runner(made, Listed(made.cells), events.append).run()
    first, second = raised.value.problems
    assert first.message == "`kd lr=3, seed 0` failed: the loss is not finite"
    assert first.hint == f"its log is `all/logs/{made.cells[0].path.name}.log`"
    assert second.message == "`kd lr=5, seed 0` failed: killed by SIGKILL, perhaps since memory ran out"
    assert [event.kind for event in events] == ["begins", "warning", "failed", "begins", "failed", "begins", "finished"]
    assert states() == {"kd lr=3, seed 0": "failed", "kd lr=5, seed 0": "failed", "kd lr=0.2, seed 0": "finished"}
    assert json.loads(Path("all", FILE).read_text())["cells"][0]["error"] == "the loss is not finite"
    assert state_of(made.cells[0], Book(made)) == "failed"
    with pytest.raises(RunError, match="lr=3"):  # it is tried again, and the others are not
        trained(made)
    assert len(epochs()) == 4


def test_changes_are_accepted_of_runs_that_have_begun(folder: Path) -> None:
    made = planned("optimizer.lr=0.1", base={"accept_change": True})
    trained(made)
    (run,) = Path("all").glob("kd*")
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({k: v for k, v in info.items() if k != "checksum"} | {"state": "running", "epoch": 3}))
    assert [event.kind for event in trained(made)] == ["begins", "finished"]
    assert epochs()[f"{run.name} 4"] == 2


def test_a_warning_of_several_runs_is_told_once(folder: Path) -> None:
    made = planned("optimizer.lr=0.5", seeds="0,1")
    events: list[Event] = []
    Runner(made, Listed(made.cells), events.append).run()
    told = [(event.cell.title, event.text) for event in events if event.kind == "warning"]
    assert told == [("kd lr=0.5, seed 0", "the teacher learnt 0 of the test images")]


def test_jobs_run_at_once_and_share_the_cores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("PAUSE", "0.02")
    made = planned("optimizer.lr=0.1,0.2,0.3,0.4", jobs=3)
    running, most = 0, 0
    for event in trained(made):
        running += {"begins": 1, "finished": -1}[event.kind]
        most = max(most, running)
    assert most == 3
    threads = {json.loads((cell.path / "environment.json").read_text())["threads"] for cell in made.cells}
    assert threads == {"2"}
    alone = planned("optimizer.lr=0.5")
    trained(alone)
    assert json.loads((alone.cells[0].path / "environment.json").read_text())["threads"] is None


@pytest.mark.slow
def test_a_run_that_somebody_else_trains_is_waited_for(folder: Path) -> None:
    made = planned("optimizer.lr=0.1,0.2")
    events: list[Event] = []
    other = subprocess.Popen(
        [str(folder / "python"), "-m", "distillctl", *made.cells[0].request.arguments()], env={**os.environ, "PAUSE": "0.3"}
    )
    until(lambda: (made.cells[0].path / "run.json").exists(), "the other run")
    Runner(made, Listed(made.cells), events.append).run()
    assert other.wait(10) == 0
    assert [(event.kind, event.cell.title) for event in events if event.kind != "warning"] == [
        ("elsewhere", "kd lr=0.1, seed 0"),
        ("begins", "kd lr=0.2, seed 0"),
        ("finished", "kd lr=0.2, seed 0"),
        ("finished", "kd lr=0.1, seed 0"),
    ]
    assert set(epochs().values()) == {1}


def test_a_sweep_is_at_work_once(folder: Path) -> None:
    made = planned("optimizer.lr=0.1")
    other = subprocess.Popen([PYTHON, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(RunError, match=f"the sweep `all` is at work already, in process {other.pid} on"):
        trained(made)
    other.communicate()
    assert epochs() == Counter()


def test_means_are_over_the_finished_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned("optimizer.lr=0.5,0.2", seeds="0,2")
    part = replace(made, cells=made.cells[:2])
    assert seconds_left(made) is None
    trained(part)
    first, second = rows(made.cells)
    assert (first.name, len(first.records), first.mean("val"), first.mean("test")) == (
        "kd lr=0.5", 2, pytest.approx(1.01), pytest.approx(0.91),
    )  # fmt: skip
    assert (second.name, second.records, second.mean("val"), second.show("val")) == ("kd lr=0.2", [], None, "")
    assert first.show("test") == "91.00%"
    assert seconds_left(made) == 80, "two runs of 40 s"
    assert seconds_left(replace(made, sweep=replace(made.sweep, jobs=2))) == 40
    assert seconds_left(part) == 0
    search = planned("optimizer.lr=0.1..1", seeds="0,2", optimize="top1", trials=3, out="all")
    assert (search.total, seconds_left(search)) == (6, 160), "two of six runs are there"


def test_of_a_search_the_best_comes_first(folder: Path) -> None:
    made = planned("optimizer.lr=0.1,0.6,3")
    with pytest.raises(RunError):
        trained(made)
    assert [row.name for row in rows(made.cells, "top1")] == ["kd lr=0.6", "kd lr=0.1", "kd lr=3"]
    for cell in made.cells[:2]:
        text = (cell.path / "metrics.jsonl").read_text().replace('"top1"', '"loss"')
        (cell.path / "metrics.jsonl").write_text(text)
    assert [row.name for row in rows(made.cells, "loss")] == ["kd lr=0.1", "kd lr=0.6", "kd lr=3"]


# -- stopped and killed -------------------------------------------------------------------------------------------------


def start(*arguments: str, pause: float = 0.1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYTHON, "-c", COMMAND, "sweep", "p.toml", "--device", "cpu", "--out", "all", *arguments],
        env={**os.environ, "PAUSE": str(pause)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def under_way(process: subprocess.Popen[str], count: int) -> None:
    """Waits until so many epochs were trained."""
    until(lambda: sum(epochs().values()) >= count or process.poll() is not None, "epochs")
    assert process.poll() is None, process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_runs_which_save(folder: Path, number: int, code: int) -> None:
    arguments = ("--grid", "optimizer.lr=0.1,0.2,0.3", "--jobs", "2")
    process = start(*arguments)
    under_way(process, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert (
        err == f"error: the sweep was stopped by {signal.Signals(number).name}; every run has saved\n\nhint: the same command continues\n"
    )
    assert out.count("stopped    ") == 2
    assert sorted(states().values()) == ["stopped", "stopped", "waiting"]
    process = start(*arguments, pause=0)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert set(states().values()) == {"finished"}
    assert set(epochs().values()) == {1}
    assert len(epochs()) == 12


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_run_that_trains_on_or_twice(folder: Path) -> None:
    arguments = ("--grid", "optimizer.lr=0.1,0.2,0.3", "--jobs", "2")
    for count in (1, 4):
        process = start(*arguments, pause=0.4)
        under_way(process, count)
        process.kill()
        process.communicate()
    process = start(*arguments, pause=0)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert set(epochs().values()) == {1}
    assert len(epochs()) == 12
    assert set(states().values()) == {"finished"}


@pytest.mark.slow
def test_runs_end_when_their_sweep_is_gone(folder: Path) -> None:
    process = start("--grid", "optimizer.lr=0.1", pause=0.3)
    under_way(process, 1)
    process.kill()
    process.communicate()
    run = next(Path("all").glob("kd*"))
    time.sleep(1.5)
    assert json.loads((run / "run.json").read_text())["epoch"] < 4


# -- the search ---------------------------------------------------------------------------------------------------------


def searched(made: Plan) -> list[tuple[int, dict[str, Any], str, float | None]]:
    return [(trial.number, trial.params, trial.state.name, trial.value) for trial in sweep_search._study(made).trials]


@pytest.mark.slow
def test_a_search_finds_what_is_best_on_the_validation_split(folder: Path) -> None:
    made = planned("optimizer.lr=0.01..2 log", seeds="0,1", control=True, optimize="top1", trials=4)
    assert titles(made) == ["none, seed 0", "none, seed 1"]
    assert made.total == 10
    Runner(made, sweep_search.Search(made), lambda _: None).run()
    found = searched(made)
    assert [state for _, _, state, _ in found] == ["COMPLETE"] * 4
    for _, params, _, value in found:
        rate = float(f"{params['optimizer.lr']:.4g}")
        assert value == pytest.approx(1 / (1 + abs(rate - 0.5)) + 0.005), "the mean over the seeds, of the validation split"
    assert len({params["optimizer.lr"] for _, params, _, _ in found}) == 4
    written = json.loads(Path("all", FILE).read_text())
    assert (written["optimize"], written["grid"], len(written["cells"])) == ("top1", {"optimizer.lr": "0.01..2 log"}, 10)
    more = planned("optimizer.lr=0.01..2 log", seeds="0,1", optimize="top1", trials=5)
    Runner(more, sweep_search.Search(more), lambda _: None).run()
    assert searched(more)[:4] == found
    assert len(searched(more)) == 5
    other = planned("optimizer.lr=0.01..3 log", seeds="0,1", optimize="top1", trials=5)
    with pytest.raises(ProfileError, match="holds a search for another figure"):
        Runner(other, sweep_search.Search(other), lambda _: None).run()


@pytest.mark.slow
def test_values_of_a_list_and_whole_numbers_can_be_searched(folder: Path) -> None:
    made = planned("method=kd,dkd", "train.epochs=1..3", optimize="top1", trials=4, jobs=2)
    Runner(made, sweep_search.Search(made), lambda _: None).run()
    values = [cell["values"] for cell in json.loads(Path("all", FILE).read_text())["cells"]]
    assert {value["method"] for value in values} <= {"kd", "dkd"}
    assert {type(value["train.epochs"]) for value in values} == {int}
    assert [state for _, _, state, _ in searched(made)] == ["COMPLETE"] * 4


def test_a_trial_that_failed_stays_open(folder: Path) -> None:
    made = planned("optimizer.lr=3,0.2", optimize="top1", trials=4)
    with pytest.raises(RunError, match="`kd lr=3, seed 0` failed"):
        Runner(made, sweep_search.Search(made), lambda _: None).run()
    found = {params["optimizer.lr"]: (state, value) for _, params, state, value in searched(made)}
    assert found == {"3": ("RUNNING", None), "0.2": ("COMPLETE", pytest.approx(1 / 1.3))}


@pytest.mark.slow
def test_runs_do_not_outlive_an_error_of_the_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAUSE", "0.3")
    made = planned("optimizer.lr=0.1", jobs=2)

    class Broken(Listed):
        def next(self) -> Any:
            if not self._left:
                until(epochs, "an epoch")
                raise ProfileError("broken")
            return super().next()

    with pytest.raises(ProfileError, match="broken"):
        Runner(made, Broken(made.cells), lambda _: None).run()
    count = sum(epochs().values())
    assert count < 4
    time.sleep(0.5)
    assert sum(epochs().values()) == count


def test_losses_are_made_smaller(folder: Path) -> None:
    Path("all").mkdir()
    made = planned("optimizer.lr=1,2", optimize="loss", trials=2)
    assert sweep_search._study(made).direction.name == "MINIMIZE"
    Path("all", "optuna.log").unlink()
    assert sweep_search._study(planned("optimizer.lr=1,2", optimize="top1", trials=2)).direction.name == "MAXIMIZE"


@pytest.mark.slow
def test_a_search_needs_a_validation_split_and_a_figure_that_there_is(folder: Path) -> None:
    grid = "optimizer.lr=1,2"
    sweep_search.check_metric(planned(grid, optimize="loss", trials=2))
    with pytest.raises(ProfileError, match=r"no figure is called `top2`[\s\S]*`top1`"):
        sweep_search.check_metric(planned(grid, optimize="top2", trials=2))
    with pytest.raises(ProfileError, match=r"needs a validation split, and p\.toml has none"):
        sweep_search.check_metric(planned(grid, optimize="top1", trials=2, base={"overrides": ("dataset.val_fraction=0.0",)}))


def test_without_optuna_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PluginError, match=r"distillctl\[optuna\]"):
        sweep_search.require()


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(folder: Path) -> None:
    """Twice: between two trials' runs, and in the middle of one."""
    arguments = ("--grid", "optimizer.lr=0.01..2 log", "--optimize", "top1", "--trials", "12")
    for count in (3, 9):
        process = start(*arguments, pause=0.2)
        under_way(process, count)
        process.kill()
        process.communicate()
    process = start(*arguments, pause=0)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    made = planned("optimizer.lr=0.01..2 log", optimize="top1", trials=12)
    interrupted = searched(made)
    assert set(epochs().values()) == {1}
    straight = planned("optimizer.lr=0.01..2 log", optimize="top1", trials=12, out="straight")
    Runner(straight, sweep_search.Search(straight), lambda _: None).run()
    assert searched(straight) == interrupted
    assert len({params["optimizer.lr"] for _, params, _, _ in interrupted}) == 12


# -- as jobs ------------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_submitted_once(folder: Path) -> None:
    made = planned("optimizer.lr=0.1,0.2,0.3")
    trained(replace(made, cells=made.cells[:1]))
    sent: list[Request] = []

    def send(requests: Any) -> list[str]:
        sent.extend(requests)
        return [f"7_{number}" for number in range(len(requests))]

    assert [(cell.title, job) for cell, job in submit(made, send, lambda _: True)] == [
        ("kd lr=0.2, seed 0", "7_0"),
        ("kd lr=0.3, seed 0", "7_1"),
    ]
    assert sent == [cell.request for cell in made.cells[1:]]
    assert states() == {"kd lr=0.1, seed 0": "finished", "kd lr=0.2, seed 0": "submitted", "kd lr=0.3, seed 0": "submitted"}
    assert list(submit(made, send, lambda _: True)) == []
    assert [job for _, job in submit(made, send, lambda job: job == "7_1")] == ["7_0"]
