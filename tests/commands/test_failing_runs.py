"""Runs that cannot come to anything name what is at fault: the teacher and its file, the model and its images, a rate that is too high."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.tracker import Tracker
from distillctl.build.data import build_task
from distillctl.build.models import TeacherModel, build_model
from distillctl.cli import run
from distillctl.cli.train import print_result
from distillctl.commands import train as module
from distillctl.commands.dry_run import dry_run
from distillctl.commands.train import train
from distillctl.errors import DataError, RunError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing import options_of

DATA = '[dataset]\nname = "digits"\nlimit = 64\n'
STUDENT = DATA + '[student]\nname = "resnet8"\n[teacher]\nname = "resnet14"\ncheckpoint = "weights.pt"\n[method]\nname = "kd"\n'
TRAIN = "[train]\nepochs = 1\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    Path("student.toml").write_text(STUDENT + TRAIN)
    Path("control.toml").write_text(DATA + '[student]\nname = "resnet8"\n[method]\nname = "none"\n[optimizer]\nlr = 1e-9\n' + TRAIN)
    return Registry.load()


def save_teacher(registry: Registry, change: Any) -> None:
    Path("weights.pt").touch()
    task = build_task(load("student.toml", registry=registry), registry)
    spec = registry.models.get("resnet14")
    model = build_model(task, spec, options_of(spec))
    with torch.no_grad():
        change(model.get_submodule(spec.classifier))
    torch.save(model.state_dict(), "weights.pt")


def too_large(layer: nn.Module) -> None:
    layer.weight.fill_(3e38)  # type: ignore[operator, union-attr]


def not_a_number(layer: nn.Module) -> None:
    layer.bias[0] = float("nan")  # type: ignore[operator, index]


def test_a_teacher_whose_logits_are_not_finite_is_named_with_its_file(registry: Registry) -> None:
    save_teacher(registry, too_large)
    profile = load("student.toml", registry=registry)
    with pytest.raises(RunError, match=r"the teacher `resnet14` from `\S*weights\.pt` cannot be judged on test: .* not finite") as caught:
        train(profile, registry, Tracker(), device="cpu")
    assert "weights whole" in caught.value.problems[0].hint
    with pytest.raises(RunError, match=r"not finite: the teacher's logits \(`resnet14` from `\S*weights\.pt`\) at step 1"):
        dry_run(profile, registry, device="cpu")


def test_weights_that_are_not_finite_are_named_with_their_file(registry: Registry) -> None:
    save_teacher(registry, not_a_number)
    with pytest.raises(DataError, match="are not all finite numbers") as caught:
        train(load("student.toml", registry=registry), registry, Tracker(), device="cpu")
    assert caught.value.problems[0].where.endswith("weights.pt")


class Picky(nn.Module):
    """Takes another size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("Wrong image height! Expected 224 but got 8!")


def test_a_teacher_of_another_size_is_told_where_it_is_judged(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("weights.pt").touch()
    spec = registry.models.get("resnet14")
    monkeypatch.setattr(module, "build_teacher", lambda *_: TeacherModel(spec, Picky(), spec.name, None))
    with pytest.raises(RunError, match=r"the teacher `resnet14` cannot take images of shape \(3, 8, 8\): Wrong image height") as caught:
        train(load("student.toml", registry=registry), registry, Tracker(), device="cpu")
    assert f"{spec.input_size} pixels" in caught.value.problems[0].hint


@pytest.mark.slow
def test_a_student_at_chance_is_told_at_the_end(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "control.toml", "--device", "cpu", "--out", "one"]) == 0
    assert "warning    the student is no better than chance, which reaches" in capsys.readouterr().out
    result = train(load("control.toml", registry=registry), registry, Tracker(), out=Path("one"), device="cpu")
    assert result.already
    assert result.summary["best"]["top1"] <= result.summary["floor"] < 0.3
    assert 0.1 <= result.summary["chance"] < result.summary["floor"]
    learnt = train(
        load("control.toml", registry=registry, overrides=["optimizer.lr=0.05", "train.epochs=8", "dataset.limit=600"]),
        registry,
        Tracker(),
        device="cpu",
    )
    assert learnt.summary["best"]["top1"] > learnt.summary["floor"] > learnt.summary["chance"] > 0
    capsys.readouterr()
    print_result(learnt)
    gain = learnt.summary["best"]["top1"] - learnt.summary["chance"]
    out = capsys.readouterr().out
    assert f"gain       {100 * gain:.2f} points over chance, which reaches {learnt.summary['chance']:.2%}\n" in out
    assert "warning" not in out


@pytest.mark.parametrize("error", [ValueError, AssertionError, RuntimeError])
def test_a_model_that_cannot_be_built_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(*_: Any) -> Any:
        raise error("odd options")

    spec = registry.models.get("resnet14")
    task = build_task(load("control.toml", registry=registry), registry)
    monkeypatch.setattr(type(task), "build", refuse)
    with pytest.raises(RunError, match="the model `resnet14` cannot be built: odd options") as caught:
        build_model(task, spec, options_of(spec))
    assert f"distillctl show {spec.qualified}" in caught.value.problems[0].hint


def test_train_begins_with_what_will_hardly_be_meant(registry: Registry) -> None:
    told: list[str] = []

    class Ear(Tracker):
        def note(self, text: str) -> None:
            told.append(text)

    overrides = ["train.keep_every=5", "train.sync_batchnorm=true", "train.ema=0.999"]
    train(load("control.toml", registry=registry, overrides=overrides), registry, Ear(), device="cpu")
    warned = [text.split("`")[1] for text in told if text.startswith("warning: ")]
    assert warned == ["train.keep_every = 5", "train.sync_batchnorm", "train.ema_ramp"]
