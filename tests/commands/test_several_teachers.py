"""Runs with several teachers: they are trained first, judged each and together, recorded by name, and compared when the run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distillctl.api.tracker import Tracker
from distillctl.cli import run as command
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import Result, train
from distillctl.errors import DataError, ProfileError, RunError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.answers import answers_file, read_answers
from distillctl.rundir.directory import RunDirectory

DATA = '[dataset]\nname = "digits"\nlimit = 300\n'
TEACHER = DATA + '[student]\nname = "resnet14"\n[optimizer]\nlr = 0.05\n[train]\nepochs = 2\n'
STUDENT = (
    DATA
    + """
[student]
name = "resnet8"
[[teacher]]
profile = "teacher.toml"
[[teacher]]
profile = "teacher.toml"
overrides = { student = { name = "resnet8" }, "train.epochs" = 3 }
[[method]]
name = "kd"
task_weight = 0.5
[[method]]
name = "at"
weight = 10.0
teacher_weights = [0.75, 0.25]
[optimizer]
lr = 0.05
[train]
epochs = 2
"""
)


class Ear(Tracker):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.teachers: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self.teachers.append((split, text))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> tuple[Path, Result, Ear]:
    folder, ear = tmp_path_factory.mktemp("several"), Ear()
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    with chdir(folder):
        result = train(load("student.toml", registry=registry), registry, ear, device="cpu")
    return folder, result, ear


@pytest.fixture
def folder(finished: tuple[Path, Result, Ear], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the place in which the run was made."""
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def runs_of_teachers(folder: Path, result: Result) -> list[Path]:
    return [Path(place) for place in RunDirectory.open(folder / result.path).info()["teacher_run"]]


def test_each_is_judged_and_all_as_one(finished: tuple[Path, Result, Ear]) -> None:
    folder, result, ear = finished
    summary = result.summary
    runs = runs_of_teachers(folder, result)
    own = {name: RunDirectory.open(run).info()["result"]["best"] for name, run in zip(("resnet14", "resnet8"), runs, strict=True)}
    for name, figures in summary["teachers"].items():
        assert figures["top1"] == own[name]["top1"]
    assert list(summary["teachers"]) == ["resnet14", "resnet8"]
    answers = [read_answers(answers_file(run, "test", "best")) for run in runs_of_teachers(folder, result)]
    together = read_answers(answers_file(folder / result.path, "test", "teacher"))
    np.testing.assert_allclose(together.own, (answers[0].own + answers[1].own) / 2, atol=1e-5)
    assert summary["teacher"]["top1"] == (together.classes[:, 0] == together.label).mean()
    shown = [f"{name} {figures['top1']:.2%}" for name, figures in summary["teachers"].items()]
    assert ear.teachers == [("test", text) for text in (*shown, f"mean of 2 {summary['teacher']['top1']:.2%}")]
    student = read_answers(answers_file(folder / result.path, "test", "best"))
    assert summary["agreement"] == (student.classes[:, 0] == together.classes[:, 0]).mean()


def test_what_the_run_says_of_them(finished: tuple[Path, Result, Ear]) -> None:
    folder, result, _ = finished
    info = RunDirectory.open(folder / result.path).info()
    runs = runs_of_teachers(folder, result)
    assert info["teacher"] == "resnet14+resnet8"
    assert list(info["teacher_sha256"]) == list(info["teacher_profile"]) == ["resnet14", "resnet8"]
    assert list(info["teacher_profile"].values()) == [RunDirectory.open(run).info()["digest"] for run in runs]
    assert json.loads((folder / result.path / "environment.json").read_text())["teacher_sha256"] == info["teacher_sha256"]
    costs, sides = info["costs"], [RunDirectory.open(run).info()["costs"]["student"] for run in runs]
    for what in ("parameters", "macs"):
        assert [costs[f"teacher.{name}"][what] for name in ("resnet14", "resnet8")] == [side[what] for side in sides]
        assert costs["teacher"][what] == sum(side[what] for side in sides)
    images = {"train": info["costs"]["images"] // 2, "test": int(result.summary["teacher"]["count"])}
    val = json.loads((folder / result.path / "metrics.jsonl").read_text().splitlines()[0])["val"]["count"]
    seen = 2 * images["train"] + 2 * images["test"] + int(val)  # on test alone and together, on val together
    assert {costs["forwards"][key] for key in ("teacher", "teacher.resnet14", "teacher.resnet8")} == {seen}
    line = json.loads((folder / result.path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"task", "kd", "at[resnet14]", "at[resnet8]"} <= line["terms"].keys()


def test_they_are_found_again(folder: Path, finished: tuple[Path, Result, Ear], registry: Registry) -> None:
    ear, before = Ear(), sorted(path.name for path in (folder / "runs").iterdir())
    again = train(load("student.toml", registry=registry), registry, ear, device="cpu")
    assert (again.already, again.summary) == (True, finished[1].summary)
    other = train(load("student.toml", registry=registry, overrides=["train.epochs=1"]), registry, ear, device="cpu")
    assert sum(note.startswith("teacher: found in") for note in ear.notes) == 2
    assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted([*before, other.path.name])


def test_another_teacher_is_refused_by_its_name(folder: Path, finished: tuple[Path, Result, Ear], registry: Registry) -> None:
    path = finished[1].path
    info = RunDirectory.open(path)
    info.update(teacher_run=[str(folder / "runs" / Path(place).name) for place in info.info()["teacher_run"]])
    assert "agreement with it" in str(evaluate_run(path, registry, device="cpu", against_teacher=True).more)
    info.update(teacher_sha256={**info.info()["teacher_sha256"], "resnet8": "0" * 64})
    with pytest.raises(DataError, match=r"the teacher's weights `resnet8`: "):
        evaluate_run(path, registry, device="cpu", against_teacher=True)
    info.update(state="running")
    with pytest.raises(DataError, match=r"the teacher's weights `resnet8`: 000000000000 → ") as caught:
        train(load("student.toml", registry=registry), registry, Ear(), device="cpu")
    assert "`resnet14`" not in str(caught.value)


def test_the_profile_of_one_has_changed(folder: Path, finished: tuple[Path, Result, Ear], registry: Registry) -> None:
    (folder / "teacher.toml").write_text(TEACHER + "label_smoothing = 0.1\n")
    with pytest.raises(DataError) as caught:
        train(load("student.toml", registry=registry), registry, Ear(), device="cpu")
    assert [f"the teacher's profile `{name}`" in str(caught.value) for name in ("resnet14", "resnet8")] == [True, True]


def test_evaluations_compare_with_all_as_one(folder: Path, finished: tuple[Path, Result, Ear], registry: Registry) -> None:
    report = evaluate_run(finished[1].path, registry, device="cpu", against_teacher=True, accept_change=True)
    assert report.figures["teacher_agreement"] == pytest.approx(finished[1].summary["agreement"])


def test_screens(finished: tuple[Path, Result, Ear], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder, result, _ = finished
    monkeypatch.chdir(folder)
    path, summary = str(result.path), result.summary
    assert command(["show", path]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  teacher    profile teacher.toml\n") == 2
    each = ", ".join(f"{name} {figures['top1']:.2%}" for name, figures in summary["teachers"].items())
    assert f"teacher mean of 2 {summary['teacher']['top1']:.2%} on test; {each}" in " ".join(shown.split())
    assert command(["show", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["teacher"] == ["profile teacher.toml"] * 2
    assert command(["runs"]) == 0
    assert "resnet14+resnet8" in capsys.readouterr().out


def test_a_dry_run_stands_in_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.chdir(tmp_path)
    Path("teacher.toml").write_text(TEACHER)
    Path("student.toml").write_text(STUDENT)
    plan = dry_run(load("student.toml", registry=registry), registry, device="cpu")
    assert [(side.role, side.name) for side in plan.sides] == [("student", "resnet8"), ("teacher", "resnet14"), ("teacher", "resnet8")]
    assert plan.notes[:2] == tuple(
        f"the teacher of teacher.toml (`{name}`) is not trained yet: fresh weights stand in" for name in ("resnet14", "resnet8")
    )
    monkeypatch.setattr("distillctl.commands.dry_run.dry_run", lambda *_, **__: SimpleNamespace(seconds=100.0))
    for overrides, seconds in (((), 200.0), (("teacher.1.overrides={}",), 100.0)):  # one training makes both
        plan = dry_run(load("student.toml", registry=registry, overrides=overrides), registry, device="cpu")
        assert plan.teacher_seconds == seconds


def fresh(registry: Registry, name: str, file: str, seed: int = 1) -> None:
    from distillctl.build.models import build_classifier
    from distillctl.testing import options_of

    spec = registry.models.get(name)
    torch.manual_seed(seed)
    torch.save(build_classifier(spec, options_of(spec), 10).state_dict(), file)


def test_one_that_is_no_better_than_chance_is_refused_by_its_table(folder: Path, registry: Registry) -> None:
    fresh(registry, "resnet8", "fresh.pt")
    text = STUDENT.replace('profile = "teacher.toml"\noverrides', 'name = "resnet8"\ncheckpoint = "fresh.pt"\n#')
    Path("student.toml").write_text(text)
    profile = load("student.toml", registry=registry)
    with pytest.raises(RunError, match=r"the teacher `resnet8` is no better than chance") as caught:
        train(profile, registry, Ear(), device="cpu")
    assert "`teacher.1.allow_untrained = true`" in caught.value.problems[0].hint


def test_the_same_weights_twice_are_told(folder: Path, registry: Registry) -> None:
    ear = Ear()
    train(load("student.toml", registry=registry, overrides=["teacher.1.overrides={}", "train.epochs=1"]), registry, ear, device="cpu")
    assert "warning: two of the teachers have the same weights, and count as two" in ear.notes


def test_a_method_that_cannot_ask_them_so_is_refused_before_they_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("teacher.toml").write_text(TEACHER)
    Path("student.toml").write_text(STUDENT)
    with pytest.raises(ProfileError, match="features of several networks have no mean"):
        train(load("student.toml", registry=registry, overrides=["method.at.teachers=mean"]), registry, Ear(), device="cpu")
    assert not list(Path().glob("runs/teacher*"))
