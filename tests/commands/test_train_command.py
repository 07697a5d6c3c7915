"""Whole runs on handwritten digits: from a profile to a run directory, again, beside, and cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distillctl.api.data import ArrayImages
from distillctl.api.tracker import RunStart, Tracker
from distillctl.build.data import build_splits, task_class
from distillctl.builtin.classification_task import Classification
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import Result, train
from distillctl.errors import DataError, DistillError, ProfileError, RunError
from distillctl.files import write_json
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.answers import answers_file, read_answers
from distillctl.rundir.directory import RunDirectory
from distillctl.rundir.lock import BusyError

TEACHER = """
[dataset]
name = "digits"
limit = 600
[student]
name = "resnet14"
[method]
name = "none"
[optimizer]
name = "sgd"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = 4
"""

STUDENT = """
[dataset]
name = "digits"
limit = 600
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
[method]
name = "kd"
[optimizer]
name = "sgd"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = 3
"""


class Ear(Tracker):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.epochs: list[dict[str, Any]] = []
        self.teachers: list[float] = []
        self.starts: list[int] = []

    def begin(self, run: RunStart) -> None:
        self.starts.append(len(run.records))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self.teachers.append(figures["top1"])

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append(dict(record))


@pytest.fixture(scope="module")
def registry(misleads: str) -> Registry:
    return Registry.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher.toml").write_text(TEACHER)
    (tmp_path / "student.toml").write_text(STUDENT)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, registry: Registry, misleads: str) -> tuple[Path, Result]:
    """One whole run that several tests look at; its best epoch is neither the first nor the last."""
    base = tmp_path_factory.mktemp("finished")
    (base / "teacher.toml").write_text(TEACHER)
    (base / "student.toml").write_text(STUDENT.replace('[method]\nname = "kd"\n', misleads.format("kd")))
    result = train(load(base / "student.toml", registry=registry), registry, Ear(), root=base / "runs", device="cpu", command=["test"])
    assert result.summary["best"]["epoch"] == 2
    return base, result


def test_a_run_leaves_its_directory_and_its_teachers(finished: tuple[Path, Result]) -> None:
    base, result = finished
    names = {p.relative_to(result.path).as_posix() for p in result.path.rglob("*") if p.is_file()}
    assert names == {
        "profile.toml", "resolved.toml", "environment.json", "run.json", "metrics.jsonl", "run.lock",
        "predictions/test-best.npz", "predictions/test-teacher.npz", "predictions/differing.npz", "report.html",
        *(f"{name}{end}" for end in ("", ".sha256") for name in (
            "student.safetensors", "model.json", "checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt",
        )),
    }  # fmt: skip
    assert len(list((base / "runs").iterdir())) == 2
    info = json.loads((result.path / "run.json").read_text())
    assert (info["state"], info["epoch"]) == ("finished", 3)
    assert (result.path / "profile.toml").read_text() == (base / "student.toml").read_text()
    environment = json.loads((result.path / "environment.json").read_text())
    assert environment["command"] == ["test"]
    assert environment["packages"]["distillctl-digits"]
    assert len(environment["teacher_sha256"]) == 64


def test_the_result_names_teacher_student_and_agreement(finished: tuple[Path, Result]) -> None:
    summary = finished[1].summary
    assert summary["teacher"]["top1"] > 0.5
    assert summary["best"]["top1"] > 0.3
    assert 0 < summary["agreement"] <= 1
    assert summary["chosen_on"] == "val"
    assert (summary["split"], summary["last"]["epoch"]) == ("test", 3)


def test_what_student_and_teacher_answered_is_kept_and_gives_the_figures(finished: tuple[Path, Result]) -> None:
    path, summary = finished[1].path, finished[1].summary
    best, teacher = (read_answers(answers_file(path, "test", who)) for who in ("best", "teacher"))
    assert best.right.mean() == pytest.approx(summary["best"]["top1"], abs=1e-12)
    assert teacher.right.mean() == pytest.approx(summary["teacher"]["top1"], abs=1e-12)
    assert (best.classes[:, 0] == teacher.classes[:, 0]).mean() == pytest.approx(summary["agreement"], abs=1e-12)
    assert -np.log(best.own).mean() == pytest.approx(summary["best"]["loss"], rel=1e-5)
    assert best.index.tolist() == list(range(summary["best"]["count"]))
    assert (best.probabilities[:, :-1] >= best.probabilities[:, 1:]).all()


def test_what_a_run_spent_is_told(finished: tuple[Path, Result]) -> None:
    """Of 600 training images three epochs, of 198 validation images one evaluation each; tests of the best and the last epoch, and the
    teacher's on both splits."""
    path, summary = finished[1].path, finished[1].summary
    lines = RunDirectory.open(path).records()
    counts = {"train": 600, "val": int(lines[0]["val"]["count"]), "test": int(summary["best"]["count"])}
    assert [line["forwards"] for line in lines] == [{"student": 600 + counts["val"], "teacher": 600}] * 3
    costs = RunDirectory.open(path).info()["costs"]
    assert costs["forwards"] == {
        "student": 3 * (600 + counts["val"]) + 2 * counts["test"],
        "teacher": 3 * 600 + counts["val"] + counts["test"],
    }
    assert costs["images"] == 1800
    assert costs["peak_memory"] > 1 << 20
    for line in lines:
        assert line["train_seconds"] + line["evaluation_seconds"] == pytest.approx(line["seconds"], abs=2e-3)
        assert 0 <= line["agreement"] <= 1


@pytest.mark.parametrize("which", ["best", "last"])
def test_eval_gives_the_number_that_training_gave(finished: tuple[Path, Result], registry: Registry, which: str) -> None:
    _, result = finished
    report = evaluate_run(result.path, registry, checkpoint=which, device="cpu")
    expected = {k: v for k, v in result.summary[which].items() if k != "epoch"}
    assert {name: report.figures[name] for name in expected} == expected
    assert report.figures.keys() - expected.keys() == set(Classification.detail_names)
    assert report.epoch == result.summary[which]["epoch"]
    assert sum(line["count"] for line in report.classes) == expected["count"]


def test_eval_asks_the_teacher_that_a_profile_made(finished: tuple[Path, Result], registry: Registry, tmp_path: Path) -> None:
    base, result = finished
    report = evaluate_run(result.path, registry, against_teacher=True, device="cpu")
    assert report.figures["teacher_agreement"] == result.summary["agreement"]
    kept = read_answers(answers_file(result.path, "test", "teacher"))
    assert (report.answers["teacher"].classes == kept.classes).all()
    assert (report.answers["student"].classes == read_answers(answers_file(result.path, "test")).classes).all()
    moved = tmp_path / "runs"
    shutil.copytree(base / "runs", moved)
    run = RunDirectory.open(moved / result.path.name)
    write_json(run.path / "run.json", {k: v for k, v in run.info().items() if k not in ("teacher_run", "checksum")})  # an older run
    assert evaluate_run(run.path, registry, against_teacher=True, device="cpu").figures == report.figures
    shutil.rmtree(next(path for path in moved.iterdir() if path.name.startswith("teacher")))
    with pytest.raises(DataError, match="the run of its teacher is not beside it"):
        evaluate_run(run.path, registry, against_teacher=True, device="cpu")


@pytest.mark.slow
def test_eval_gives_the_number_of_a_run_in_bf16_to_the_last_digit(folder: Path, registry: Registry) -> None:
    """Training lays the networks out in another memory format, which must not reach the figures."""
    result = train(
        load("teacher.toml", registry=registry, overrides=["train.precision=bf16", "train.ema=0.5"]), registry, Ear(), device="cpu"
    )
    for which in ("best", "last"):
        report = evaluate_run(result.path, registry, checkpoint=which, device="cpu")
        expected = {k: v for k, v in result.summary[which].items() if k != "epoch"}
        assert {name: report.figures[name] for name in expected} == expected


def test_eval_takes_the_newest_finished_run_and_files(finished: tuple[Path, Result], registry: Registry) -> None:
    base, result = finished
    newest = evaluate_run(None, registry, root=base / "runs", device="cpu", split="val")
    assert (newest.run, newest.split, newest.tta, newest.plain) == (result.path, "val", "", None)
    file = evaluate_run(result.path, registry, checkpoint=str(result.path / "student.safetensors"), device="cpu")
    assert file.figures["top1"] == result.summary["best"]["top1"]
    with pytest.raises(DataError, match="no finished run"):
        evaluate_run(None, registry, root=base / "nowhere")
    with pytest.raises(DataError, match="not a run directory"):
        evaluate_run(base, registry)


def test_views_stand_beside_the_plain_figures(folder: Path, registry: Registry) -> None:
    cut = ["train.epochs=2", 'dataset.augment="crop_flip"']
    path = train(load("teacher.toml", registry=registry, overrides=cut), registry, Ear(), device="cpu").path
    views, plain = (evaluate_run(path, registry, device="cpu", tta=tta) for tta in ("auto", ""))
    assert (views.tta, views.plain, plain.plain) == ("flip", plain.figures, None)
    assert views.figures != plain.figures
    assert (views.as_dict()["plain"], "plain" in plain.as_dict()) == (plain.figures, False)
    assert views.shown[0] == ("top-1", f"{views.figures['top1']:.2%} ({plain.figures['top1']:.2%} without)")


@pytest.mark.parametrize("tta", ["auto", "flip", "ten_crop"])
def test_views_that_training_never_showed_are_refused(finished: tuple[Path, Result], registry: Registry, tta: str) -> None:
    """A mirrored digit is another digit."""
    with pytest.raises(ProfileError, match=r"`\w+` mirrors images, .*: training on `digits` mirrors none"):
        evaluate_run(finished[1].path, registry, device="cpu", tta=tta)


def test_the_deployed_student_needs_its_models_package_alone(finished: tuple[Path, Result], registry: Registry) -> None:
    from distillctl_cifar.models import resnet8

    state = load_file(finished[1].path / "student.safetensors")
    model = resnet8(num_classes=10)
    model.load_state_dict(state)
    described = json.loads((finished[1].path / "model.json").read_text())
    assert (described["model"], described["package"], described["num_classes"]) == ("resnet8", "distillctl-cifar", 10)
    best = torch.load(finished[1].path / "checkpoints" / "best.pt", weights_only=True)["student"]
    assert all(torch.equal(state[k], v) for k, v in best.items())
    # By hand, from model.json alone: the accuracy that training and `eval` give.
    test = build_splits(load(finished[0] / "student.toml", registry=registry)).test
    assert isinstance(test, ArrayImages)
    mean, std = (torch.tensor(described["input"][key])[:, None, None] for key in ("mean", "std"))
    images = (test.images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        right = (model.eval()(images).argmax(1) == test.labels).double().mean()
    assert float(right) == finished[1].summary["best"]["top1"]


def test_the_same_command_says_that_it_is_finished_and_fresh_starts_beside(finished: tuple[Path, Result], registry: Registry) -> None:
    base, result = finished
    profile = load(base / "student.toml", registry=registry)
    before = (result.path / "run.json").read_bytes()
    ear = Ear()
    again = train(profile, registry, ear, root=base / "runs", device="cpu")
    assert again.already
    assert (again.path, again.summary) == (result.path, result.summary)
    assert not ear.epochs
    other = train(profile, registry, ear, root=base / "runs", device="cpu", fresh=True)
    assert other.path.name == f"{result.path.name}-2"
    assert other.summary == result.summary
    assert (result.path / "run.json").read_bytes() == before
    assert any("found in" in note for note in ear.notes)


def test_resolved_profile_reads_back_as_the_same_run(finished: tuple[Path, Result], registry: Registry) -> None:
    from distillctl.profile.reading import from_resolved

    profile = from_resolved(finished[1].path / "resolved.toml", registry)
    assert profile.digest == json.loads((finished[1].path / "run.json").read_text())["digest"]


def test_eval_needs_no_method_package_and_skips_damaged_runs(finished: tuple[Path, Result], registry: Registry) -> None:
    base, result = finished
    (base / "runs" / "damaged").mkdir()
    (base / "runs" / "damaged" / "run.json").write_text("{")
    text = (result.path / "resolved.toml").read_text()
    assert 'name = "kd"' in text
    try:
        (result.path / "resolved.toml").write_text(text.replace('name = "kd"', 'name = "of_a_package_that_is_gone"'))
        report = evaluate_run(None, registry, root=base / "runs", device="cpu")
    finally:
        (result.path / "resolved.toml").write_text(text)
    assert report.figures["top1"] == result.summary["best"]["top1"]


@pytest.mark.parametrize("name", ["student.safetensors", "model.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "its hash is cut"])
def test_a_damaged_student_of_a_finished_run_is_written_again(
    finished: tuple[Path, Result], registry: Registry, tmp_path: Path, name: str, how: str
) -> None:
    base, result = finished
    copy = tmp_path / "run"
    shutil.copytree(result.path, copy)
    file = copy / (f"{name}.sha256" if "hash" in how else name)
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    ear = Ear()
    again = train(load(base / "student.toml", registry=registry), registry, ear, root=base / "runs", out=copy, device="cpu")
    assert any(f"`{copy / name}" in note and "written again from the checkpoints" in note for note in ear.notes)
    assert (again.already, ear.epochs) == (False, [])
    for one in (name, f"{name}.sha256"):
        assert (copy / one).read_bytes() == (result.path / one).read_bytes()
    assert again.summary == result.summary
    assert json.loads((copy / "run.json").read_text())["state"] == "finished"
    assert train(load(base / "student.toml", registry=registry), registry, Ear(), root=base / "runs", out=copy, device="cpu").already


def test_out_is_never_overwritten(finished: tuple[Path, Result], registry: Registry, tmp_path: Path) -> None:
    base, result = finished
    other = load(base / "student.toml", registry=registry, overrides=["train.epochs=1"])
    with pytest.raises(DataError, match=r"`train\.epochs`: 3 → 1"):
        train(other, registry, Ear(), root=base / "runs", out=result.path, device="cpu")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ProfileError, match="not a run directory"):
        train(other, registry, Ear(), root=base / "runs", out=tmp_path, device="cpu")


def test_a_teacher_no_better_than_chance_stops_the_run(folder: Path, registry: Registry) -> None:
    from distillctl_cifar.models import resnet14

    torch.manual_seed(0)
    torch.save(resnet14(num_classes=10).state_dict(), folder / "fresh.pt")
    cut = ["train.epochs=1", 'teacher={name="resnet14", checkpoint="fresh.pt"}']
    with pytest.raises(RunError, match="no better than chance"):
        train(load("student.toml", registry=registry, overrides=cut), registry, Ear(), device="cpu")
    assert not list((folder / "runs").iterdir())
    allowed = ["train.epochs=1", 'teacher={name="resnet14", checkpoint="fresh.pt", allow_untrained=true}']
    assert train(load("student.toml", registry=registry, overrides=allowed), registry, Ear(), device="cpu").summary["best"]["epoch"] == 1


def test_a_changed_teacher_stops_a_continued_run(folder: Path, registry: Registry) -> None:
    from distillctl_cifar.models import resnet14

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(resnet14(num_classes=10).state_dict(), folder / "t.pt")

    class Stops(Ear):
        def epoch(self, record: dict[str, Any]) -> None:
            raise KeyboardInterrupt("of the test")

    save(0)
    profile = load("student.toml", registry=registry, overrides=['teacher={name="resnet14", checkpoint="t.pt", allow_untrained=true}'])
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        train(profile, registry, Stops(), device="cpu")
    save(1)
    with pytest.raises(DataError, match=r"changed since .* the teacher's weights: [0-9a-f]{12} → [0-9a-f]{12}"):
        train(profile, registry, Ear(), device="cpu")
    save(0)
    ear = Ear()
    assert not train(profile, registry, ear, device="cpu").already
    assert ear.starts == [1]


def test_a_changed_teacher_profile_is_noticed_even_when_the_run_is_finished(folder: Path, registry: Registry) -> None:
    cut = ["train.epochs=1", "teacher.overrides.train.epochs=1", "teacher.allow_untrained=true"]
    train(load("student.toml", registry=registry, overrides=cut), registry, Ear(), device="cpu")
    (folder / "teacher.toml").write_text(TEACHER.replace("lr = 0.02", "lr = 0.03"))
    with pytest.raises(DataError, match="teacher's profile"):
        train(load("student.toml", registry=registry, overrides=cut), registry, Ear(), device="cpu")


def test_a_teacher_with_the_same_classes_in_another_order_is_refused(folder: Path, registry: Registry) -> None:
    cut = ["train.epochs=1"]
    teacher = train(load("teacher.toml", registry=registry, overrides=cut), registry, Ear(), device="cpu").path
    described = json.loads((teacher / "model.json").read_text())
    (teacher / "model.json.sha256").unlink()  # otherwise the file counts as damaged
    (teacher / "model.json").write_text(json.dumps({**described, "classes": described["classes"][::-1]}))
    with pytest.raises(ProfileError, match="in another order"):
        train(load("student.toml", registry=registry, overrides=cut, teacher=str(teacher)), registry, Ear(), device="cpu")


@pytest.mark.slow
def test_a_teacher_that_learnt_the_classes_in_another_order_is_refused(folder: Path, registry: Registry) -> None:
    teacher = train(load("teacher.toml", registry=registry), registry, Ear(), device="cpu").path
    weights = load_file(teacher / "student.safetensors")
    weights |= {name: value.roll(3, 0) for name, value in weights.items() if name.startswith("fc.")}  # class 0 is its fourth output
    torch.save(weights, "rolled.pt")
    rolled = 'teacher={{name="resnet14", checkpoint="rolled.pt"{}}}'
    with pytest.raises(RunError, match="its answers fit the classes far better in another order") as caught:
        train(load("student.toml", registry=registry, overrides=[rolled.format(""), "train.epochs=1"]), registry, Ear(), device="cpu")
    assert "`dataset.class_order = [...]`" in caught.value.problems[0].hint
    allowed = [rolled.format(", allow_untrained=true"), "train.epochs=1"]
    assert train(load("student.toml", registry=registry, overrides=allowed), registry, Ear(), device="cpu").summary["best"]["epoch"] == 1


def test_a_teacher_that_another_process_trains_is_waited_for(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings that need one untrained teacher: the second goes on when it is there, or when the first died."""
    from distillctl.commands import train as module

    cut = ["train.epochs=1", "teacher.overrides.train.epochs=1", "teacher.allow_untrained=true"]
    real, asked = module.locked, []

    def busy(path: Path) -> Any:
        asked.append(path.name.split("-")[0])
        if asked[-1] == "teacher" and len(asked) < 4:
            raise BusyError(f"`{path}` is being trained by process 7 on elsewhere")
        return real(path)

    monkeypatch.setattr(module, "locked", busy)
    monkeypatch.setattr(module, "_WAIT", 0.01)
    ear = Ear()
    result = train(load("student.toml", registry=registry, overrides=cut), registry, ear, device="cpu")
    assert asked == ["student", "teacher", "teacher", "teacher"]
    (note,) = (note for note in ear.notes if "waiting" in note)
    assert note.endswith("is being trained by process 7 on elsewhere: waiting until the teacher is there")
    assert result.summary["best"]["epoch"] == 1


def test_profiles_that_name_each_other_are_refused(folder: Path, registry: Registry) -> None:
    (folder / "teacher.toml").write_text(STUDENT.replace("teacher.toml", "student.toml").replace("resnet8", "resnet14"))
    with pytest.raises(DistillError, match=r"student\.toml|teacher\.toml"):
        train(load("student.toml", registry=registry), registry, Ear(), device="cpu")


def test_a_dry_run_writes_nothing_and_tells_shapes(folder: Path, registry: Registry) -> None:
    plan = dry_run(load("student.toml", registry=registry, method="crd"), registry, device="cpu")
    assert sorted(p.name for p in folder.iterdir()) == ["student.toml", "teacher.toml"]
    student, teacher = plan.sides
    assert (student.role, student.name, teacher.name) == ("student", "resnet8", "resnet14")
    assert student.taps["pooled"] == (64,)
    assert student.parameters == 83_892 - 90 * 65
    assert plan.steps_per_epoch == 10
    assert plan.seconds > 0
    assert plan.memory is None or plan.memory > 0
    assert "crd" in plan.parts[-1].reading.terms
    assert "not trained yet" in plan.notes[0]


def test_teacher_overrides_reach_the_teachers_profile(folder: Path, registry: Registry) -> None:
    ear = Ear()
    cut = ["train.epochs=1", "teacher.overrides.train.epochs=1", "teacher.allow_untrained=true"]
    train(load("student.toml", registry=registry, overrides=cut), registry, ear, device="cpu")
    assert len(ear.epochs) == 2


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cpu:1"])
def test_devices_that_are_not_there(folder: Path, registry: Registry, name: str) -> None:
    if name.startswith("cuda") and torch.cuda.device_count() > 99:
        name = "cuda:9999"
    with pytest.raises(DistillError) as caught:
        train(load("teacher.toml", registry=registry), registry, Ear(), device=name)
    assert caught.value.exit_code == (3 if name.startswith("cuda") else 2)


def test_fp16_is_refused_on_a_cpu(folder: Path, registry: Registry) -> None:
    with pytest.raises(ProfileError, match="needs a GPU"):
        train(load("student.toml", registry=registry, overrides=["train.precision=fp16"]), registry, Ear(), device="cpu")
    assert not (folder / "runs").exists()  # not even the teacher was trained


def test_a_teacher_that_learnt_held_out_images_is_told(folder: Path, registry: Registry) -> None:
    """Another seed splits the digits otherwise; the teacher's profile keeps its own."""
    short = ["train.epochs=1", "dataset.limit=300", "teacher.overrides.dataset.limit=300", "teacher.allow_untrained=true"]
    first, second = Ear(), Ear()
    train(load("student.toml", registry=registry, overrides=short), registry, first, device="cpu")
    assert not [note for note in first.notes if "WARNING" in note]
    train(load("student.toml", registry=registry, overrides=short, seed=1), registry, second, device="cpu")
    warnings = [note for note in second.notes if "WARNING" in note]
    assert [any(f"{split} images, so its figures are too good" in note for note in warnings) for split in ("val", "test")] == [True, True]
    for way in ("dataset.split_seed=0", "teacher.overrides.dataset.split_seed=1"):
        assert f"`--set {way}`" in warnings[0]
        third = Ear()
        same = load("student.toml", registry=registry, overrides=[*short, way], seed=1)
        train(same, registry, third, device="cpu")
        assert not [note for note in third.notes if "WARNING" in note]


def test_splits_are_those_of_the_split_seed_and_all_else_of_the_seed(folder: Path, registry: Registry) -> None:
    def images(**more: Any) -> tuple[list[Any], list[int]]:
        profile = load("student.toml", registry=registry, **more)
        splits = build_splits(profile)
        assert splits.test is not None
        return [splits.train.images, splits.test.images], [profile.seed, profile.split_seed]  # type: ignore[attr-defined]

    (train0, test0), seeds = images()
    assert seeds == [0, 0]
    (train1, test1), seeds = images(seed=1, overrides=["dataset.split_seed=0"])
    assert seeds == [1, 0]
    assert torch.equal(train0, train1)
    assert torch.equal(test0, test1)
    (_, other), seeds = images(seed=1)
    assert seeds == [1, 1]
    assert not torch.equal(test0, other)


def test_teacher_overrides_merge_keys_and_replace_named_tables(folder: Path, registry: Registry) -> None:
    from distillctl.profile.reading import load_teacher_profile

    cut = ["teacher.overrides.train={batch_size=32}", 'teacher.overrides.student={name="wrn_16_1"}', "teacher.overrides.optimizer.lr=0.5"]
    teacher = load_teacher_profile(load("student.toml", registry=registry, overrides=cut), registry)
    assert (teacher.train.batch_size, teacher.train.epochs) == (32, 4)
    assert teacher.student.spec.name == "wrn_16_1"
    assert (teacher.optimizer.spec.name, teacher.optimizer.options.lr) == ("sgd", 0.5)  # type: ignore[attr-defined]
    swapped = ['teacher.overrides.dataset={name="imagefolder", root="."}']  # `limit` of the table it replaces is gone
    assert load_teacher_profile(load("student.toml", registry=registry, overrides=swapped), registry).dataset.table.limit == 0


def test_methods_add_up_and_keep_their_names(folder: Path, registry: Registry) -> None:
    tables = """
[[method]]
name = "crd"
negatives = 32
[[method]]
name = "kd"
weight = 1.0
temperature = 2.0
task_weight = 0.5
[[method]]
name = "kd"
temperature = 8.0
[[method]]
name = "ctkd"
[method.inner]
name = "dkd"
[[method]]
name = "mgd"
weight = 0.0
"""
    (folder / "many.toml").write_text(STUDENT.replace('[method]\nname = "kd"\n', tables))
    plan = dry_run(load("many.toml", registry=registry), registry, device="cpu")
    assert list(plan.parts[-1].reading.terms) == ["task", "crd", "kd", "kd-2", "ctkd.tckd", "ctkd.nckd"]
    # What a method of weight 0 would want is not even captured.
    assert set(plan.sides[0].taps) == {"pooled", "logits"}


def test_a_gpu_that_is_not_used_is_told_once(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the run and the dry run, and not again while the teacher is trained."""
    from distillctl.commands import dry_run as dry
    from distillctl.commands import train as module

    profile = load("teacher.toml", registry=registry, overrides=["train.epochs=1"])
    for where in (module, dry):
        monkeypatch.setattr(where, "unused_gpu", lambda name, device: f"{name} is {device}")
    assert dry_run(profile, registry).notes[0] == "auto is cpu"
    monkeypatch.setattr(module._Plan, "run", lambda self, **_: Result(self.path, False, task_class(profile, registry), {}))
    for ancestors, expected in (((), ["auto is cpu"]), ((Path("student.toml"),), [])):
        ear = Ear()
        train(profile, registry, ear, device="auto", _ancestors=ancestors)
        assert ear.notes == expected
