"""Distillation without labels: a run learns its teacher's answers, is judged by them, and says what it lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.tracker import Tracker
from distillctl.cli import run as command
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import Result, train
from distillctl.errors import DataError, DistillError, ProfileError, RunError
from distillctl.models.deploy import read_model_json, read_student
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.directory import RunDirectory

COMMON = """
image_size = 8
augment = "crop_flip"
resize = 8
eval_resize = 8
[optimizer]
lr = 0.05
[train]
epochs = 3
batch_size = 16
workers = 0
[student]
name = "resnet8"
"""
TEACHER = '[dataset]\nname = "imagefolder"\nroot = "named"' + COMMON
STUDENT = (
    '[teacher]\nprofile = "teacher.toml"\n[method]\nname = "kd"\ntemperature = 1.0\n'
    '[dataset]\nname = "imagefolder"\nroot = "nameless"\nlabels = false\nlabelled = "named"\nval_fraction = 0.25' + COMMON
)
COLOURS = {"blue": (60, 80, 200), "green": (50, 190, 70), "red": (200, 60, 60)}


def paint(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + np.random.default_rng(seed).normal(0, 35, (8, 8, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


class Notes(Tracker):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> tuple[Path, Result, list[str]]:
    folder, display = tmp_path_factory.mktemp("unlabelled"), Notes()
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(20):
            paint(folder / "named" / name / f"{i}.png", colour, 1000 * number + i)
        for i in range(32):
            paint(folder / "nameless" / f"{number}_{i}.png", colour, 1000 * number + 500 + i)
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    with chdir(folder):
        result = train(load("student.toml", registry=registry), registry, display, device="cpu")
    return folder, result, display.notes


@pytest.fixture
def folder(finished: tuple[Path, Result, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the place in which the run was made."""
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def records(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(("seconds", "per_second"))} for line in lines]


def place(result: Result, folder: Path) -> Path:
    return folder / result.path


def test_training_raises_the_agreement(finished: tuple[Path, Result, list[str]]) -> None:
    where, result, notes = finished
    start, best, every = result.summary["start"], result.summary["best"], records(place(result, where))
    assert set(every[0]["terms"]) == {"kd"}
    assert best["agreement"] > start["agreement"] + 0.2
    assert best["kl"] < start["kl"]
    assert {"cosine", "feature_cosine", "knn", "count"} <= best.keys()
    assert (start["split"], best["count"]) == ("val", 24)
    assert best["epoch"] == max(every, key=lambda r: (r["val"]["agreement"], r["epoch"]))["epoch"]
    assert result.summary["teacher_knn"] > 0.9
    assert [note for note in notes if note.startswith("the teacher's k-NN is ")]
    assert not {"teacher", "chance", "floor", "agreement"} & result.summary.keys()
    assert RunDirectory.open(place(result, where)).info()["start"] == start
    assert sum(note.startswith("before training on val: agreement ") for note in notes) == 1


def test_several_teachers_answer_together(folder: Path, registry: Registry) -> None:
    """The student agrees with their mean, and has the k-NN figure of each told."""
    tables = '[[teacher]]\nprofile = "teacher.toml"\n[[teacher]]\nprofile = "teacher.toml"\noverrides = {"train.epochs" = 4}\n'
    Path("two.toml").write_text(STUDENT.replace('[teacher]\nprofile = "teacher.toml"\n', tables))
    display = Notes()
    result = train(load("two.toml", registry=registry), registry, display, device="cpu")
    assert result.summary["best"]["agreement"] > result.summary["start"]["agreement"]
    assert "feature_cosine" not in result.summary["best"], "features of several have no mean"
    told = [note.partition(" is ")[0] for note in display.notes if note.startswith("the k-NN of")]
    assert told == ["the k-NN of the teacher resnet8", "the k-NN of the teacher resnet8-2"]
    report = evaluate_run(result.path, registry, device="cpu")
    assert report.figures["agreement"] == result.summary["best"]["agreement"]
    assert read_model_json(result.path)["classes"] == ["blue", "green", "red"]


def test_it_is_evaluated_as_it_was_trained(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    result = finished[1]
    for checkpoint in ("best", "last"):
        report = evaluate_run(result.path, registry, device="cpu", checkpoint=checkpoint)
        assert dict(report.figures) == {key: value for key, value in result.summary[checkpoint].items() if key != "epoch"}
    flipped = evaluate_run(result.path, registry, device="cpu", tta="flip")
    assert flipped.plain == evaluate_run(result.path, registry, device="cpu").figures
    assert [words for words, _ in report.shown] == ["agreement", "KL", "cosine", "cosine of features", "k-NN"]


def test_the_student_has_the_teachers_classes(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    model, info = read_student(finished[1].path, registry)
    assert (info["task"], info["num_classes"], info["classes"]) == ("unlabelled", 3, sorted(COLOURS))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert "num_classes = 3" in RunDirectory.open(finished[1].path).resolved.read_text()


def test_a_run_that_was_stopped_goes_on_exactly(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    class Stops(Tracker):
        def epoch(self, record: Mapping[str, Any]) -> None:
            raise KeyboardInterrupt

    shutil.rmtree(finished[1].path)
    profile, display = load("student.toml", registry=registry), Notes()
    with pytest.raises(KeyboardInterrupt):
        train(profile, registry, Stops(), device="cpu")
    result = train(profile, registry, display, device="cpu")
    assert result.summary == finished[1].summary
    assert records(result.path) == records(place(finished[1], finished[0]))
    assert not [note for note in display.notes if note.startswith("before training")]
    assert train(profile, registry, Tracker(), device="cpu").already


def test_a_teacher_that_is_gone_or_another_is_named(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    student = finished[1].path
    teacher = next(path for path in student.parent.iterdir() if path.name.startswith("teacher"))
    assert RunDirectory.open(student).info()["teacher_run"] == str(finished[0] / teacher)
    other, told = folder / "elsewhere", RunDirectory.open(student)
    told.update(teacher_run=str(folder / "gone" / teacher.name))  # all runs were moved together
    evaluate_run(student, registry, device="cpu")
    told.update(teacher_run=str(other))
    with pytest.raises(DataError, match="told by its teacher, which cannot be asked"):
        evaluate_run(student, registry, device="cpu")
    shutil.copytree(student, other)
    with pytest.raises(DataError, match="the teacher's weights"):
        evaluate_run(student, registry, device="cpu")
    assert evaluate_run(student, registry, device="cpu", accept_change=True).figures["agreement"] == 1


def test_labelled_images_are_compared_like_the_others(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    next(Path("named/red").iterdir()).unlink()
    with pytest.raises(DataError, match="the data `labelled`"):
        evaluate_run(finished[1].path, registry, device="cpu")


@pytest.mark.parametrize(
    "teacher",
    [
        'run = "RUN"',
        'name = "resnet8"\ncheckpoint = "RUN/student.safetensors"',
        'profile = "teacher.toml"\noverrides = {"train.epochs" = 7}',  # not trained yet: its data say it
    ],
)
def test_the_teacher_says_how_many_outputs_there_are(folder: Path, registry: Registry, teacher: str) -> None:
    run = next(path for path in Path("runs").iterdir() if path.name.startswith("teacher"))
    Path("student.toml").write_text(STUDENT.replace('profile = "teacher.toml"', teacher.replace("RUN", str(run))))
    plan = dry_run(load("student.toml", registry=registry), registry, device="cpu")
    assert {side.taps["logits"] for side in plan.sides} == {(3,)}


@pytest.mark.parametrize("teacher", ['run = "RUN"', 'name = "resnet8"\ncheckpoint = "RUN/student.safetensors"'])
def test_another_number_than_the_teachers_is_refused(folder: Path, registry: Registry, teacher: str) -> None:
    run = next(path for path in Path("runs").iterdir() if path.name.startswith("teacher"))
    Path("student.toml").write_text(STUDENT.replace('profile = "teacher.toml"', teacher.replace("RUN", str(run))))
    with pytest.raises(DistillError, match=r"gives 3 numbers, and the data set asks for 5|3 classes"):
        dry_run(load("student.toml", registry=registry, overrides=["dataset.num_classes=5"]), registry, device="cpu")


def test_who_does_not_say_it_is_told_which_line_does(folder: Path, registry: Registry) -> None:
    state = {f"odd.{name}": value for name, value in torch.nn.Linear(3, 2).state_dict().items()}
    torch.save(state, "odd.pt")
    Path("student.toml").write_text(STUDENT.replace('profile = "teacher.toml"', 'name = "resnet8"\ncheckpoint = "odd.pt"'))
    with pytest.raises(ProfileError, match="do not say how many classes it tells apart") as caught:
        dry_run(load("student.toml", registry=registry), registry, device="cpu")
    assert caught.value.problems[0].hint == "state it: `num_classes = 1000`"


@pytest.mark.parametrize("method", ["dkd", "nkd", "crd", "ofa"])
def test_methods_that_read_labels_are_refused(folder: Path, registry: Registry, method: str) -> None:
    with pytest.raises(ProfileError, match=f"`{method}` reads labels, and `imagefolder` has none") as caught:
        dry_run(load("student.toml", registry=registry, method=method), registry, device="cpu")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("method", ["at", "simkd", "dist", "rkd", "fitnet"])
def test_methods_that_do_not_are_trained(folder: Path, registry: Registry, method: str) -> None:
    overrides = ["train.mixup=1.0", "train.cutmix=1.0", "train.accumulate=2", 'dataset.cache="ram"']
    plan = dry_run(load("student.toml", registry=registry, method=method, overrides=overrides), registry, device="cpu")
    assert "task" not in plan.parts[-1].reading.terms


def test_a_teacher_that_says_one_thing_is_refused(folder: Path, registry: Registry) -> None:
    run = next(path for path in Path("runs").iterdir() if path.name.startswith("teacher"))
    model, _ = read_student(run, registry)
    with torch.no_grad():
        model.get_submodule("fc").weight.zero_()
    torch.save(model.state_dict(), "mute.pt")
    Path("student.toml").write_text(STUDENT.replace('profile = "teacher.toml"', 'name = "resnet8"\ncheckpoint = "mute.pt"'))
    with pytest.raises(RunError, match="`resnet8` gives all 24 images the same answer, so that there is nothing to learn"):
        train(load("student.toml", registry=registry), registry, Tracker(), device="cpu")


def test_broken_files_are_left_out_and_the_data_checked(
    folder: Path, registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILLCTL_CACHE", str(folder / "cache"))
    for name in ("nameless/0_3.png", "named/red/2.png"):
        Path(name).write_bytes(Path(name).read_bytes()[:-40])
    assert command(["check-data", "student.toml"]) == 1
    assert "broken: 1 image" in capsys.readouterr().out
    plan = dry_run(load("student.toml", registry=registry, overrides=['dataset.on_error="skip"']), registry, device="cpu")
    assert "2 broken images left out" in plan.data
    assert "labelled 1" in plan.data


def test_the_command_line_tells_start_and_end(
    folder: Path, finished: tuple[Path, Result, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", "student.toml"]) == 0
    shown = capsys.readouterr().out
    assert "student    agreement " in shown
    assert "start      agreement " in shown
    assert "over chance" not in shown
    assert command(["eval", str(finished[1].path)]) == 0
    assert command(["check", "student.toml"]) == 0
    assert "data: no labels; images: train 96, val carved by seed" in capsys.readouterr().out


def test_a_student_without_labels_can_teach(folder: Path, finished: tuple[Path, Result, list[str]], registry: Registry) -> None:
    assert read_model_json(finished[1].path)["task"] == "unlabelled"
    Path("student.toml").write_text(STUDENT.replace('profile = "teacher.toml"', f'run = "{finished[1].path}"'))
    plan = dry_run(load("student.toml", registry=registry), registry, device="cpu")
    assert plan.sides[1].name == "resnet8"
