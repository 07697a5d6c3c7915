"""`reproduce`: whether the mean of several seeds lies within the band around what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillctl.api.task import Task
from distillctl.cli import run as cli
from distillctl.commands import reproduce as module
from distillctl.commands.reproduce import Reproduction, reproduce
from distillctl.commands.sweep import Plan
from distillctl.errors import ProfileError, RunError
from distillctl.plugin.registry import Registry, load_class
from distillctl.rundir.directory import RunDirectory
from distillctl.slurm.request import Request

PROFILE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[method]
name = "none"
[train]
epochs = 1
[published]
top1 = 73.33
source = "a paper"
[published.methods]
none = 99
kd = { top1 = 80, epoch = "best", band = 2.0 }
"""
SHOWN = {"metric": "top1", "names": {"top1": "top-1", "mpa": "mpa"}, "percent": ["top1", "mpa"]}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load({})


@pytest.fixture
def last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the last epoch of each seed reaches, in place of a training; the best one reaches 0.1 more."""
    figures: list[float] = []
    monkeypatch.chdir(tmp_path)
    for name in ("p.toml", "t.toml"):
        (tmp_path / name).write_text(PROFILE)

    def trained(path: Path, seed: int) -> None:
        state = {"name": "p", "digest": "", "shown": SHOWN, "changes": [{}] if len(figures) > 3 else []}
        made = RunDirectory.create(path, profile=b"", resolved="", environment={}, state=state)
        figure = figures[seed]
        result = {
            "split": "test",
            "teacher": {"top1": 0.9},
            "last": {"epoch": 1, "top1": figure},
            "best": {"epoch": 1, "top1": figure + 0.1},
        }
        made.update(state="finished", result=result)

    class Stub:
        def __init__(self, plan: Plan, *_: Any) -> None:
            self.cells = plan.cells

        def run(self) -> None:
            self.cells[0].path.parent.mkdir(parents=True, exist_ok=True)
            (self.cells[0].path.parent / "sweep.json").write_text("{}")
            for cell in self.cells:
                trained(cell.path, cell.seed)

    monkeypatch.setattr(module, "Runner", Stub)
    return figures


def asked(registry: Registry, profile: str = "p.toml", *, seeds: int = 1, **request: Any) -> Reproduction:
    return reproduce(Request(profile, **request), registry, seeds=seeds)


@pytest.mark.parametrize(
    ("figures", "passed"),
    [([0.7333], True), ([0.7383], True), ([0.7384], False), ([0.7283], True), ([0.7282], False), ([0.72, 0.74, 0.74], True)],
)
def test_the_mean_of_the_last_epochs_decides(registry: Registry, last: list[float], figures: list[float], passed: bool) -> None:
    last[:] = figures
    found = asked(registry, seeds=len(figures))
    assert found.passed is passed
    assert found.mean == pytest.approx(100 * sum(figures) / len(figures))
    assert found.sd == (pytest.approx(1.1547, abs=1e-4) if len(figures) > 1 else None)
    assert [(one.seed, one.path.name, one.teacher) for one in found.seeds] == [
        (i, found.seeds[i].path.name, 90.0) for i in range(len(figures))
    ]


def test_a_method_has_its_own_figure_and_epoch(registry: Registry, last: list[float]) -> None:
    last[:] = [0.69]
    found = asked(registry, method="kd", overrides=("teacher.profile=t.toml",))
    assert (found.figure.value, found.mean, found.band, found.within) == (80, pytest.approx(79), 2, True)
    assert not found.passed  # for the teacher was not published
    assert found.others == ("options that were not published",)


def test_the_profiles_own_method_is_the_profile(registry: Registry, last: list[float]) -> None:
    last[:] = [0.7333]
    assert asked(registry, method="none").figure.value == 73.33


def test_other_values_never_pass(registry: Registry, last: list[float]) -> None:
    last[:] = [0.7333]
    found = asked(registry, overrides=("train.epochs=2",))
    assert (found.within, found.passed) == (True, False)
    assert asked(registry, overrides=("train.workers=0",)).passed


def test_a_run_with_accepted_changes_never_passes(registry: Registry, last: list[float]) -> None:
    last[:] = [0.7333] * 4
    found = asked(registry)
    assert not found.passed
    assert found.others == (f"`{found.seeds[0].path}` went on after an accepted change",)


def test_what_has_no_figure_is_refused_before_training(registry: Registry, last: list[float]) -> None:
    with pytest.raises(ProfileError, match="states no published figure for the method `dkd`") as caught:
        asked(registry, method="dkd", overrides=("teacher.profile=t.toml",))
    assert "`none`, `kd`" in caught.value.problems[0].hint
    Path("q.toml").write_text(PROFILE.partition("[published]")[0])
    with pytest.raises(ProfileError, match=r"`q\.toml` states no published figure"):
        asked(registry, "q.toml")


def test_a_figure_that_the_run_has_not_is_told(registry: Registry, last: list[float]) -> None:
    last[:] = [0.7]
    Path("p.toml").write_text(PROFILE.replace('source = "a paper"', 'source = "a paper"\nsplit = "val"'))
    with pytest.raises(RunError, match="has no `top1` on val, which was published"):
        asked(registry)


def test_what_is_printed(last: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    last[:] = [0.7311, 0.7301, 0.7321]
    assert cli(["reproduce", "p.toml", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "published  73.33 % ± 0.5 top-1 (last epoch on test; a paper)\n" in printed
    assert "mean       73.11 %, standard deviation 0.1 of 3 seeds\nPASS       0.22 points below what is published, within 0.5\n" in printed
    assert cli(["reproduce", "p.toml", "--quiet", "--seeds", "1", "--set", "optimizer.lr=3"]) == 1
    printed = capsys.readouterr().out
    assert "no PASS    0.22 points below what is published, within 0.5\n" in printed
    assert printed.endswith("not the published recipe: options that were not published\n")
    last[0] = 0.75
    assert cli(["reproduce", "p.toml", "--seeds", "1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["published"], told["mean"], told["not_the_published_recipe"]) == (False, 73.33, 75.0, [])


def test_check_shows_what_is_published(last: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["check", "p.toml"]) == 0
    line = "published: top1 73.33 ± 0.5 for one seed (last epoch on test; a paper); `distillctl reproduce` compares\n"
    assert line in capsys.readouterr().out
    assert cli(["check", "p.toml", "--set", "train.epochs=3"]) == 0
    assert "published" not in capsys.readouterr().out


@pytest.mark.slow
def test_runs_that_are_there_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Real ones: what the first seed reaches is published, and then found without training."""
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(PROFILE.replace("[train]", "[train]\nbatch_size = 256"))
    assert cli(["reproduce", "p.toml", "--seeds", "1", "--json", "--device", "cpu"]) == 1
    (one,) = json.loads(capsys.readouterr().out)["seeds"]
    Path("p.toml").write_text(Path("p.toml").read_text().replace("73.33", f"{one['value']}"))
    assert cli(["reproduce", "p.toml", "--seeds", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "1 run, 1 of them finished" in printed
    assert "PASS       0.00 points" in printed
    assert [path.parent for path in Path("runs").rglob("run.json")] == [Path(one["run"])]


def test_figures_that_a_task_declares_are_those_that_it_tells(registry: Registry) -> None:
    declared = {spec.name: spec.figures for spec in registry.tasks if spec.figures}
    assert declared.keys() >= {"classification", "unlabelled", "detection"}
    for name, figures in declared.items():
        assert figures == tuple(load_class(registry.tasks.get(name), Task, "task").names)
