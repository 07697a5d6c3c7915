"""A run on drawn shapes: killed and continued, deployed, evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from distillctl.commands.benchmark import bench_profile
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.evaluate_model import evaluate_model
from distillctl.models.deploy import read_student
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.killed_runs import finish, kill_at, start
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions

PROFILES = Path(__file__).parents[3] / "profiles"
TERMS = ("objectness", "rpn_box_reg", "classifier", "box_reg")
TINY = """name = "fasterrcnn"
backbone = "mobilenet_v3_small"
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
"""
PROFILE = f"""
seed = 3
[dataset]
name = "shapes"
train = 18
val = 4
test = 4
image_size = 64
[student]
{TINY}width = 8
[teacher]
{TINY}width = 16
checkpoint = "teacher.pt"
allow_untrained = true
[[method]]
name = "dkd"
task_weight = 1.0
[[method]]
name = "mgd"
mask = "spatial"
student_stage = "p3"
teacher_stage = "p3"
[[method]]
name = "reviewkd"
teacher_stages = ["stages"]
pooled = false
[optimizer]
lr = 0.005
[train]
epochs = 6
batch_size = 8
accumulate = 2
ema = 0.9
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two finished runs of one profile, one of which was killed."""
    folder = tmp_path_factory.mktemp("shapes")
    torch.manual_seed(1)
    options = FasterRCNNOptions(
        backbone="mobilenet_v3_small", width=16, head_width=16, anchor_size=8.0, proposals=64, anchor_samples=32, box_samples=16
    )
    torch.save(FasterRCNN(3, options).state_dict(), folder / "teacher.pt")
    (folder / "profile.toml").write_text(PROFILE)
    straight = start(folder, "straight")
    assert kill_at(start(folder, "killed"), folder / "killed", 2) < 6
    finish(start(folder, "killed"))
    finish(straight)
    return folder


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bits(folder: Path) -> None:
    a, b = (torch.load(folder / name / "checkpoints" / "last.pt", weights_only=True) for name in ("straight", "killed"))
    assert a["position"]["epoch"] == b["position"]["epoch"] == 6
    for part in ("student", "methods"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part]), part
    assert (folder / "straight/student.safetensors").read_bytes() == (folder / "killed/student.safetensors").read_bytes()

    def lines(name: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.endswith(("seconds", "per_second"))} for row in rows]

    assert lines("straight") == lines("killed")
    first, *_, last = lines("straight")
    assert set(first["terms"]) == {
        *("task.objectness", "task.rpn_box_reg", "task.classifier", "task.box_reg", "dkd.tckd", "dkd.nckd", "mgd", "reviewkd")
    }
    assert last["total"] < first["total"]


@pytest.mark.slow
def test_it_is_deployed_and_evaluated_without_its_profile(folder: Path) -> None:
    registry = Registry.load()
    model, info = read_student(folder / "straight", registry)
    assert isinstance(model, FasterRCNN)
    assert (info["task"], info["classes"], info["num_classes"]) == ("detection", ["circle", "square", "triangle"], 3)
    assert (info["classifier"], info["stages"]["p2"]) == ("", "backbone.fpn.layer_blocks.0")
    assert model.state_dict().keys() == safetensors.torch.load_file(folder / "straight/student.safetensors").keys()
    report = evaluate_run(folder / "straight", registry, device="cpu")
    recorded = json.loads((folder / "straight/run.json").read_text())["result"]["best"]
    assert dict(report.figures) == {key: value for key, value in recorded.items() if key != "epoch"}
    assert report.figures["count"] == 4


@pytest.mark.slow
def test_a_step_is_told_apart_though_a_detector_gives_no_single_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    registry = Registry.load()
    (found,) = bench_profile(load("profile.toml", registry=registry), registry, steps=1, warmup=0, device="cpu")
    assert found.parts.keys() == {"data", "teacher", "student", "loss", "guard", "optimizer"}
    assert found.parts["student"] > found.parts["loss"] > 0


@pytest.mark.slow
def test_a_detector_from_a_file_is_evaluated_without_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    registry = Registry.load()
    options = [line.replace(" = ", "=") for line in TINY.splitlines()[1:]]
    report = evaluate_model(
        "fasterrcnn", Path("profile.toml"), registry, checkpoint=Path("straight/student.safetensors"), device="cpu",
        overrides=["model.width=8", *(f"model.{option}" for option in options)],
    )  # fmt: skip
    assert dict(report.figures) == dict(evaluate_run(folder / "straight", registry, device="cpu").figures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detection_teacher", "detection_quickstart"])
def test_the_profiles_of_the_quickstart_can_be_run(name: str) -> None:
    registry = Registry.load()
    cut = ["dataset.train=16", "dataset.val=2", "dataset.test=2", "train.batch_size=4"]
    plan = dry_run(load(PROFILES / f"{name}.toml", registry=registry, overrides=cut), registry, device="cpu")
    assert set(plan.parts[-1].reading.terms) - {"kd", "fitnet"} == {f"task.{term}" for term in TERMS}
