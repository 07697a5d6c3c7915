"""Runs on views of unequal sizes: tried at the largest, killed and continued, and in two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from distillctl import Batch, ProfileError, RunError, Tracker, export, load_student, predict
from distillctl.commands.dry_run import dry_run
from distillctl.commands.train import train
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.killed_runs import finish, kill_at, start
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions

SIZES = [(40, 44), (44, 40), (40, 90), (48, 48), (64, 60), (40, 44), (45, 40), (44, 48), (50, 44)]
"""With a short side of 48 pixels one of them alone needs a batch that is wider than 64."""
TINY = """name = "fasterrcnn"
backbone = "mobilenet_v3_small"
width = 8
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
frozen_norm = true
"""
PROFILE = f"""
seed = 3
[dataset]
name = "coco"
root = "data"
val = ""
resize = "sides"
short_sides = [48, 64]
long_side = 96
[student]
{TINY}checkpoint = "student.pt"
[teacher]
{TINY}checkpoint = "teacher.pt"
allow_untrained = true
[[method]]
name = "dkd"
task_weight = 1.0
[[method]]
name = "cwd"
student_stages = ["p3", "p4"]
teacher_stages = ["p3", "p4"]
[optimizer]
lr = 0.005
[train]
epochs = 5
batch_size = 3
"""
ONE_STEP = [
    *("dataset.aspect_batches=false", "dataset.short_sides=[48]", "train.batch_size=9", "train.epochs=1"),
    *("optimizer.momentum=0.0", "optimizer.weight_decay=0.0"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    images = [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, (h, w) in enumerate(SIZES)]
    boxes = [{"image_id": n, "category_id": 1 + k, "bbox": [3 + k, 5, 20, 24 - k]} for n in range(9) for k in range(n % 3)]
    for number, (height, width) in enumerate(SIZES):
        path = folder / "data" / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = torch.randint(0, 256, (height // 8, width // 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        Image.fromarray(blocks.numpy()).resize((width, height)).save(path)
    listed = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    (folder / "data" / "instances_train.json").write_text(json.dumps(listed))
    options = FasterRCNNOptions(
        backbone="mobilenet_v3_small", width=8, head_width=16, anchor_size=8.0, proposals=64, anchor_samples=32, box_samples=16
    )
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        torch.save(FasterRCNN(2, options).state_dict(), folder / f"{name}.pt")
    (folder / "profile.toml").write_text(PROFILE)
    return folder


def student(folder: Path, out: str) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(folder / out / "checkpoints" / "last.pt", weights_only=True)["student"]
    return weights


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bits(folder: Path) -> None:
    straight = start(folder, "straight")
    assert kill_at(start(folder, "killed"), folder / "killed", 1) < 5
    finish(start(folder, "killed"))
    finish(straight)
    one, other = student(folder, "straight"), student(folder, "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)
    records = [
        [(row["terms"], row["total"]) for row in map(json.loads, (folder / name / "metrics.jsonl").read_text().splitlines())]
        for name in ("straight", "killed")
    ]
    assert records[0] == records[1]
    assert len(records[0]) == 5
    # The deployed student: what it says to a picture depends on no other.
    deployed, files = load_student(folder / "straight"), sorted((folder / "data" / "images").glob("*.png"))
    alone = [next(iter(predict(deployed, [file]))) for file in files]
    together = list(predict(deployed, files))
    assert [one.boxes for one in alone] == [one.boxes for one in together]
    assert sum(len(one.boxes) for one in alone) > 3
    with pytest.raises(ProfileError, match="pictures come to this student in sizes of their own"):
        export(folder / "straight")


@pytest.mark.slow
def test_two_processes_take_the_first_step_of_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without momentum the weights move by the rate times the gradient."""
    both = start(folder, "both", *(f"--set={text}" for text in ONE_STEP), "--nproc", "2")
    monkeypatch.chdir(folder)
    registry = Registry.load()
    train(load("profile.toml", registry=registry, overrides=ONE_STEP), registry, Tracker(), device="cpu", out=folder / "alone")
    finish(both)
    before = torch.load(folder / "student.pt", weights_only=True)
    one, two = student(folder, "alone"), student(folder, "both")
    moved = {name: one[name] - before[name] for name in one if one[name].is_floating_point()}
    norm = torch.stack([value.norm() for value in moved.values()]).norm()
    apart = torch.stack([(one[name] - two[name]).norm() for name in moved]).norm()
    assert norm > 1e-3
    assert apart < 1e-4 * norm


def test_a_dry_run_steps_at_the_largest_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shapes = []
    plain = Step.__call__

    def step(one: Step, batch: Batch, number: int) -> None:
        shapes.append(tuple(batch.images.shape[2:]))
        plain(one, batch, number)

    monkeypatch.setattr(Step, "__call__", step)
    registry = Registry.load()
    plan = dry_run(load("profile.toml", registry=registry), registry, device="cpu")
    assert len(shapes) == 2
    assert set(shapes) <= {(64, 96), (96, 64)}
    assert plan.sides[0].taps["p3"] == (8, 8, 12)
    (folder / "cc.toml").write_text(PROFILE.replace('name = "dkd"', 'name = "cc"\nstudent_stage = "p4"\nteacher_stage = "p4"'))
    with pytest.raises(RunError, match="`cc` embeds every value of a map"):
        dry_run(load("cc.toml", registry=registry), registry, device="cpu")
