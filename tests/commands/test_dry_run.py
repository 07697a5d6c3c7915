"""A dry run before the teacher exists: its stand-in gives logits of a usual size, and its training is in the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distillctl.build.data import build_task
from distillctl.commands.dry_run import _evaluation_seconds, dry_run, stand_in_teachers
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

DATA = '[dataset]\nname = "digits"\nlimit = 130\n'
TEACHER = DATA + '[student]\nname = "resnet32x4"\n[method]\nname = "none"\n[train]\nepochs = 4\n'
STUDENT = DATA + '[student]\nname = "resnet8"\n[teacher]\nprofile = "teacher.toml"\n[method]\nname = "vid"\n[train]\nepochs = 3\n'


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    Path("teacher.toml").write_text(TEACHER)
    Path("student.toml").write_text(STUDENT)
    return Registry.load()


def test_a_stand_in_has_statistics_of_the_data(registry: Registry) -> None:
    profile = load("student.toml", registry=registry)
    task = build_task(profile, registry)
    torch.manual_seed(0)
    (teacher,) = stand_in_teachers(profile, registry, task, Path("runs"), [], torch.device("cpu"))
    norms = [m for m in teacher.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms), "calibrated once, not from then on"
    assert all((norm.running_mean != 0).any() for norm in norms)
    with torch.no_grad():
        logits = teacher.model.eval()(torch.randn(64, 3, 8, 8))
    assert logits.abs().max() < 100


@pytest.mark.parametrize("method", ["vid", pytest.param("mgd", marks=pytest.mark.slow)])
def test_a_dry_run_reads_terms_of_a_usual_size(registry: Registry, method: str) -> None:
    plan = dry_run(load("student.toml", registry=registry, method=method), registry, device="cpu")
    assert plan.parts[-1].reading.terms[method] < 1e5  # 8e6 with fresh statistics; `vid` ended as not finite
    assert plan.notes == ("the teacher of teacher.toml is not trained yet: fresh weights stand in",)
    assert plan.teacher_seconds > 0
    assert plan.evaluation_seconds > 0
    assert plan.seconds == plan.step_seconds + plan.evaluation_seconds + plan.teacher_seconds
    assert not Path("runs").exists()


def test_a_head_is_counted_once(registry: Registry) -> None:
    """`simkd` gives the student a head, which it trains: these parameters are the student's."""
    Path("teacher.toml").write_text(TEACHER.replace("resnet32x4", "wrn_16_1"))
    plan = dry_run(load("student.toml", registry=registry, method="simkd"), registry, device="cpu")
    assert plan.methods == {"parameters": 0, "macs": 0}
    assert plan.sides[0].parameters > registry.models.get("resnet8").parameters


def test_evaluations_are_counted_by_how_many_there_are(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten epochs, each third evaluated and the last: 4 on val; two of the student and one of the teacher on test."""
    from distillctl.build.experiment import assemble
    from distillctl.commands import dry_run as module

    profile = load("student.toml", registry=registry, overrides=["train.epochs=10", "evaluate.every=3"])
    task = build_task(profile, registry)
    made = assemble(profile, task, stand_in_teachers(profile, registry, task, Path("runs"), [], torch.device("cpu")), torch.device("cpu"))
    lengths = {id(made.splits.val): 1.0, id(made.splits.test): 100.0}
    monkeypatch.setattr(module, "_seconds_of", lambda _, model, images: lengths[id(images)])
    assert _evaluation_seconds(made) == 4 * 1.0 + 3 * 100.0
    made.close()


@pytest.mark.slow
def test_what_will_hardly_be_meant_is_told(registry: Registry) -> None:
    plan = dry_run(load("student.toml", registry=registry, overrides=["method.warmup_epochs=30"]), registry, device="cpu")
    assert any("never passes 10%" in note for note in plan.notes)


@pytest.mark.parametrize("wanted", [False, True])
def test_steps_are_tried_with_the_algorithms_of_the_run(registry: Registry, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """So that what has no deterministic algorithm is found before a run begins; cuBLAS is told before anything is computed."""
    from distillctl.commands import dry_run as module

    seen: list[object] = []
    monkeypatch.setattr(module, "prepare", seen.append)
    monkeypatch.setattr(module, "_try_part", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    profile = load("teacher.toml", registry=registry, overrides=[f"train.deterministic={str(wanted).lower()}", "student.name=resnet8"])
    with pytest.raises(TypeError):  # a plan needs more than nothing of its parts
        dry_run(profile, registry, device="cpu")
    assert seen == [wanted, wanted]
    assert not torch.are_deterministic_algorithms_enabled()
