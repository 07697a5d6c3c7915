"""A stranger's task, data set and tracker train, evaluate, resume and deploy without an edit of the core.

That they do is the proof that the seams are ones: `strangers/brightness.py` is all there is.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from distillctl.api.data import Splits
from distillctl.api.tracker import Tracker
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import Result, train
from distillctl.errors import DistillError, ProfileError, RunError
from distillctl.models.deploy import read_student
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing import TaskContract

pytestmark = pytest.mark.slow

STRANGERS = Path(__file__).parent / "strangers"
TEACHER = """
seed = 3
[dataset]
name = "brightness"
[student]
name = "resnet14"
[method]
name = "none"
[optimizer]
lr = 0.01
[train]
epochs = 8
batch_size = 16
"""
STUDENT = """
seed = 3
[dataset]
name = "brightness"
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
[method]
name = "at"
weight = 10.0
[optimizer]
lr = 0.01
[train]
epochs = 8
batch_size = 16
"""


@pytest.fixture(scope="module")
def registry() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STRANGERS))
        registry = Registry.load()
        registry.add(Plugin("brightness", "stranger", "0"), lambda: importlib.import_module("brightness"))
        assert not registry.broken
        yield registry


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher.toml").write_text(TEACHER)
    (tmp_path / "student.toml").write_text(STUDENT)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("brightness")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = train(load("student.toml", registry=registry), registry, Tracker(), device="cpu", root=folder / "runs")
    return folder, result


def records(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "per_second"))} for line in lines]


def test_it_trains_with_its_own_loss_and_figures(finished: tuple[Path, Result]) -> None:
    _, result = finished
    first, *_, last = records(result.path)
    assert set(first["terms"]) == {"task.square", "at"}
    assert last["terms"]["task.square"] < first["terms"]["task.square"] / 4
    assert set(first["val"]) == {"explained", "error", "count"}
    assert last["train_error"] < first["train_error"]
    assert "agreement" not in result.summary
    assert result.summary["teacher"]["explained"] > 0.5
    best = max(records(result.path), key=lambda r: (r["val"]["explained"], r["epoch"]))
    assert result.summary["best"]["epoch"] == best["epoch"]
    assert (result.task.metric, result.task.show("explained", 0.5)) == ("explained", "0.5000")


def test_it_is_evaluated_and_deployed(finished: tuple[Path, Result], registry: Registry) -> None:
    folder, result = finished
    report = evaluate_run(result.path, registry, device="cpu")
    assert dict(report.figures) == {key: value for key, value in result.summary["best"].items() if key != "epoch"}
    assert report.classes == []
    assert [words for words, _ in report.shown] == ["R²", "mean error"]
    assert "classes" not in report.as_dict()
    model, info = read_student(result.path, registry)
    assert (info["task"], info["num_classes"], info["classes"]) == ("regression", 1, [])
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 1)
    assert evaluate_run(None, registry, root=folder / "runs", split="val", device="cpu").figures["count"] == 40


def test_a_run_that_was_stopped_goes_on_exactly(folder: Path, finished: tuple[Path, Result], registry: Registry) -> None:
    class Stops(Tracker):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if record["epoch"] == 2 and "at" in record["terms"]:
                raise KeyboardInterrupt

    profile = load("student.toml", registry=registry)
    with pytest.raises(KeyboardInterrupt):
        train(profile, registry, Stops(), device="cpu", root=folder / "runs")
    result = train(profile, registry, Tracker(), device="cpu", root=folder / "runs")
    straight = finished[1]
    assert result.summary == straight.summary
    assert records(result.path) == records(straight.path)
    one, other = (torch.load(path / "checkpoints" / "last.pt", weights_only=True)["student"] for path in (result.path, straight.path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_dry_run_and_a_limit_work(folder: Path, registry: Registry) -> None:
    plan = dry_run(load("student.toml", registry=registry, overrides=["dataset.limit=20"]), registry, device="cpu")
    assert "training cut to 20 of" in plan.data
    assert set(plan.parts[-1].reading.terms) == {"task.square", "at"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('method={name="dkd"}', "`dkd` reads labels, and `brightness` has none"),
        ('method={name="kd"}', "`kd` reads logits, and `brightness` has none"),
        ('method={name="ctkd", inner={name="dkd"}}', "`ctkd` reads logits, and `brightness` has none"),
        ("train.label_smoothing=0.1", "`train.label_smoothing` has no effect on this data set"),
    ],
)
def test_what_means_nothing_for_the_task_is_refused(folder: Path, registry: Registry, override: str, words: str) -> None:
    profile = load("student.toml", registry=registry, overrides=[override])
    with pytest.raises(ProfileError, match=words):
        dry_run(profile, registry, device="cpu")


def test_views_that_nobody_averages_are_refused(finished: tuple[Path, Result], registry: Registry) -> None:
    with pytest.raises(ProfileError, match="test-time augmentation means nothing for `brightness`"):
        evaluate_run(finished[1].path, registry, tta="flip", device="cpu")


def test_a_teacher_that_only_guesses_is_refused(folder: Path, registry: Registry) -> None:
    torch.manual_seed(0)
    from distillctl_cifar.models import resnet14

    torch.save(resnet14(num_classes=1).state_dict(), "fresh.pt")
    profile = load("student.toml", registry=registry, overrides=['teacher={name="resnet14", checkpoint="fresh.pt"}'])
    with pytest.raises(RunError, match=r"is no better than chance: -\d.* on test, where guessing reaches 0\.0000"):
        train(profile, registry, Tracker(), device="cpu", root=folder / "runs")


def notebook() -> list[str]:
    lines: list[str] = importlib.import_module("brightness").Notebook.lines
    return lines


def test_a_strangers_tracker_is_told_what_happens_and_changes_nothing(
    folder: Path, finished: tuple[Path, Result], registry: Registry
) -> None:
    profile = load("student.toml", registry=registry, overrides=['tracker=[{name="notebook"}, {name="csv", separator=";"}]'])
    assert profile.digest == load("student.toml", registry=registry).digest
    notebook().clear()
    result = train(profile, registry, Tracker(), device="cpu", root=folder / "runs")
    best = result.summary["best"]["epoch"]
    assert notebook() == [
        "teacher test ['count', 'error', 'explained']", "begin resnet8 at explained 0/8",
        *(f"epoch main {number}" for number in range(1, 9)), f"end {best}", "close",
    ]  # fmt: skip
    assert result.path.name == finished[1].path.name
    assert result.summary == finished[1].summary
    assert records(result.path) == records(finished[1].path)
    assert len((result.path / "metrics.csv").read_text().splitlines()) == 9


@pytest.mark.parametrize("call", ["teacher", "begin", "epoch", "end", "close"])
def test_a_tracker_that_fails_is_left_out_with_a_word(folder: Path, finished: tuple[Path, Result], registry: Registry, call: str) -> None:
    class Ear(Tracker):
        notes: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    tables = f'tracker=[{{name="notebook", fails="{call}"}}, {{name="notebook"}}]'
    notebook().clear()
    result = train(load("student.toml", registry=registry, overrides=[tables]), registry, Ear(), device="cpu", root=folder / "runs")
    assert result.summary == finished[1].summary
    warning = f"WARNING: the tracker `notebook` failed in `{call}`, and the run goes on without it: SystemExit: no paper left for {call}"
    assert [note for note in Ear.notes if "WARNING" in note] == [warning]
    assert notebook().count("close") == 1


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ('tracker=[{name="notebok"}]', "no tracker is called `notebok`"),
        ('tracker=[{name="notebook", fail="x"}]', "unknown option `fail` for tracker `notebook`"),
        ('tracker="notebook"', r"`tracker` must be a table, \[tracker\], or several, \[\[tracker\]\]"),
        ("tracker=[{}]", "`tracker.0.name` is missing"),
    ],
)
def test_trackers_of_a_profile_are_checked(folder: Path, registry: Registry, tables: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        load("student.toml", registry=registry, overrides=[tables])


class TestContract(TaskContract):
    """The stranger's task keeps the contract."""

    bounds = (None, 1.0)

    @pytest.fixture(autouse=True)
    def _stranger(self, registry: Registry) -> None:
        type(self).task = importlib.import_module("brightness").Regression

    def splits(self, folder: Path) -> Splits:
        module = importlib.import_module("brightness")
        splits: Splits = module.build_brightness(module.BrightnessOptions(), 0)
        return splits

    def model(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, outputs))


def test_a_task_that_nobody_has_is_named(folder: Path) -> None:
    with pytest.raises(DistillError, match="no data set is called `brightness`"):
        load("student.toml", registry=Registry.load())
