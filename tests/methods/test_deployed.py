"""Students whose run had more to it than a student: what is deployed, evaluated and taken as a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillctl.api.tracker import Tracker
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import train
from distillctl.models import deploy
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

pytestmark = pytest.mark.slow

PROFILE = """
[dataset]
name = "digits"
limit = 300
[student]
name = "resnet8"
[teacher]
name = "resnet14"
checkpoint = "teacher.pt"
allow_untrained = true
{methods}
[optimizer]
name = "sgd"
lr = 0.02
[train]
epochs = 2
ema = {ema}
"""
METHOD = '[method]\nname = "{}"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from distillctl_cifar.models import resnet14

    torch.manual_seed(0)
    torch.save(resnet14(num_classes=10).state_dict(), tmp_path / "teacher.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, methods: str, *, ema: float = 0.0, **changes: Any) -> Path:
    text = PROFILE.format(methods=methods, ema=ema)
    if "byot" in methods:
        text = text[: text.index("[teacher]")] + text[text.index("[method]") :]
    (folder / "profile.toml").write_text(text)
    registry = Registry.load()
    train(load("profile.toml", registry=registry, **changes), registry, Tracker(), out=folder / "run", device="cpu")
    return folder / "run"


@pytest.mark.parametrize("ema", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_simkd_deploys_its_head(folder: Path, misleads: str, ema: float) -> None:
    """Evaluation by checkpoint, by deployed weights, and by hand agree; the classifier is the teacher's."""
    path = run(folder, misleads.format("simkd"), ema=ema, overrides=["train.epochs=3"])
    registry = Registry.load()
    reports = [evaluate_run(path, registry, checkpoint=name, device="cpu") for name in ("best", "last")]
    info = json.loads((path / "run.json").read_text())
    assert info["result"]["best"]["top1"] != info["result"]["last"]["top1"]
    assert reports[0].figures["top1"] == info["result"]["best"]["top1"]
    assert reports[1].figures["top1"] == info["result"]["last"]["top1"]
    weights = load_file(path / "student.safetensors")
    teacher = torch.load("teacher.pt", weights_only=True)
    assert torch.equal(weights["fc.layers.classifier.weight"], teacher["fc.weight"])
    assert any(name.startswith("fc.layers.projector.") for name in weights)
    model, described = deploy.read_student(path, registry)
    assert described["head"]["feature"] == "layer3"
    images = torch.randn(3, 3, 8, 8)
    maps: list[torch.Tensor] = []
    handle = model.layer3.register_forward_hook(lambda _m, _a, out: maps.append(out))  # type: ignore[union-attr]
    logits = model(images)
    handle.remove()
    head: Any = model.fc.layers  # type: ignore[union-attr]
    torch.testing.assert_close(head(maps[0]), logits)
    by_hand = head.projector(maps[0]).mean((2, 3)) @ teacher["fc.weight"].T + teacher["fc.bias"]
    torch.testing.assert_close(by_hand, logits)


def test_a_student_of_simkd_can_teach(folder: Path) -> None:
    path = run(folder, METHOD.format("simkd"))
    text = PROFILE.format(methods=METHOD.format("at"), ema=0.0)
    begin, end = text.index("[teacher]"), text.index("[method]")
    (folder / "second.toml").write_text(f'{text[:begin]}[teacher]\nrun = "{path}"\nallow_untrained = true\n{text[end:]}')
    registry = Registry.load()
    result = train(load("second.toml", registry=registry), registry, Tracker(), out=folder / "second", device="cpu")
    assert result.summary["teacher"]["top1"] == json.loads((path / "run.json").read_text())["result"]["best"]["top1"]


@pytest.mark.parametrize("method", ["byot", "ft", "reviewkd", "vid"])
def test_nothing_of_a_method_is_deployed(folder: Path, method: str) -> None:
    """The exits of `byot`, paraphrasers, fusions and regressors stay behind."""
    from distillctl_cifar.models import resnet8

    changes = {"overrides": ["method.init_epochs=1"]} if method == "ft" else {}
    path = run(folder, METHOD.format(method), **changes)
    weights = load_file(path / "student.safetensors")
    plain = resnet8(num_classes=10)
    assert weights.keys() == plain.state_dict().keys()
    plain.load_state_dict(weights)
    assert torch.load(path / "checkpoints" / "last.pt", weights_only=True)["methods"]
