"""A teacher's boxes as targets, and images without labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from distillctl import Batch, ProfileError, Relabels, Splits, Tracker
from distillctl.commands.dry_run import dry_run
from distillctl.commands.train import train
from distillctl.data import train_loader
from distillctl.models.features import Tapped
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_detection import plugin
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.foreign import ForeignDetector
from distillctl_detection.options import FasterRCNNOptions, ShapesOptions
from distillctl_detection.shapes import build as build_shapes
from distillctl_detection.task import Detection

ROWS = 8


def detector(seed: int, **options: Any) -> FasterRCNN:
    torch.manual_seed(seed)
    tiny = {"backbone": "mobilenet_v3_small", "width": 8, "head_width": 16, "anchor_size": 8.0, "proposals": 64, "anchor_samples": 32}
    return FasterRCNN(3, FasterRCNNOptions(**{**tiny, "box_samples": ROWS, "frozen_norm": True, **options}))


def mixed() -> Splits:
    """Every second image has no label, and no boxes."""
    splits = build_shapes(ShapesOptions(train=8, val=2, test=2, image_size=64, most=3), 0)
    labels = torch.arange(8) % 2 - 1
    return replace(splits, train=replace(splits.train, labels=labels), unlabelled_share=0.5)


@pytest.fixture
def task() -> Detection:
    return Detection(mixed())


@pytest.fixture
def batch(task: Detection) -> Batch:
    data = replace(task.data, unlabelled_share=0.0)  # in the order of an epoch of all images
    found = next(iter(train_loader(data, batch_size=8, seed=0, device=torch.device("cpu"), workers=0).epoch(0)))
    names = ("boxes", "labels", "crowd", "area")
    targets = [
        {**one, **{name: one[name][:0] for name in names}} if label < 0 else one
        for one, label in zip(found.targets, found.labels.tolist(), strict=True)
    ]
    return replace(found, seeds=found.index * 7 + 1, targets=targets)


def test_detections_of_the_teacher_are_its_guesses(task: Detection, batch: Batch) -> None:
    teacher = Tapped(detector(1, score_threshold=0.0, detections=6).eval(), plugin.FASTERRCNN, ["p3"])
    with torch.no_grad():
        guesses = task.guesses(teacher, task.look(teacher, batch), batch)
        expected = teacher.model(batch.images)
    assert torch.equal(guesses.labelled, batch.labels == 0)
    wide = [(one["boxes"][:, 2:] - one["boxes"][:, :2] >= 1).all(1) for one in expected]
    assert guesses.images.bincount(minlength=8).tolist() == [int(kept.sum()) for kept in wide]
    torch.testing.assert_close(guesses.scores, torch.cat([one["scores"][kept] for one, kept in zip(expected, wide, strict=True)]))
    for one, kept, content in zip(expected, wide, guesses.content, strict=True):
        torch.testing.assert_close(content["boxes"], one["boxes"][kept])


def test_soft_boxes_stand_where_they_shall_and_labels_elsewhere(task: Detection, batch: Batch) -> None:
    teacher = Tapped(detector(1, score_threshold=0.0, detections=6).eval(), plugin.FASTERRCNN, ["p3"])
    with torch.no_grad():
        guesses = task.guesses(teacher, task.look(teacher, batch), batch)
    weights = torch.where(torch.arange(len(guesses.scores)) % 3 > 0, guesses.scores, 0.0)
    found = task.relabelled(batch, guesses, Relabels(weights, ~guesses.labelled))
    assert (batch.labels == 0).sum() == 4
    for number, (before, after) in enumerate(zip(batch.targets, found.targets, strict=True)):
        if batch.labels[number] == 0:
            assert torch.equal(after["boxes"], before["boxes"])
            assert after["weights"].tolist() == [1.0] * len(before["boxes"])
            continue
        mine = weights[guesses.images == number]
        assert after["weights"].tolist() == mine[mine > 0].tolist()
        assert torch.equal(after["boxes"], guesses.content[number]["boxes"][mine > 0])
        assert torch.equal(after["labels"], guesses.content[number]["labels"][mine > 0] - 1)
        assert after["crowd"].tolist() == [False] * len(after["boxes"])
        assert torch.equal(after["scale"], before["scale"])


def losses(task: Detection, batch: Batch) -> dict[str, Tensor]:
    student = Tapped(detector(0), plugin.FASTERRCNN, [])
    return task.label_loss(task.forward(student, batch), batch)


def only(batch: Batch, chosen: Tensor) -> Batch:
    rows = chosen.nonzero().flatten()
    assert batch.seeds is not None
    parts = {name: getattr(batch, name)[rows] for name in ("images", "labels", "index", "seeds")}
    return replace(batch, **parts, targets=[batch.targets[n] for n in rows.tolist()])


def test_without_a_teachers_boxes_nothing_is_learnt_from_images_without_labels(task: Detection, batch: Batch) -> None:
    """The loss is that of the other images alone, neither objects nor background."""
    plain = Detection(replace(task.data, train=replace(task.data.train, labels=torch.empty(0, dtype=torch.int64)), unlabelled_share=0.0))
    labelled = replace(only(batch, batch.labels == 0), labels=torch.empty(0, dtype=torch.int64))
    found, expected = losses(task, batch), losses(plain, labelled)
    assert list(found) == ["objectness", "rpn_box_reg", "classifier", "box_reg"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_with_a_teachers_boxes_the_rest_of_an_image_is_background(task: Detection, batch: Batch) -> None:
    given = [{**one, "weights": torch.ones(len(one["boxes"]))} for one in batch.targets]
    assert losses(task, replace(batch, targets=given))["objectness"] > 1.2 * losses(task, batch)["objectness"]


class Told(ForeignDetector):
    """Remembers where the pictures were said to be."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, images: Tensor, within: Any = None) -> list[dict[str, Tensor]]:
        self.within = within
        return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}] * len(images)


def test_a_foreign_detector_is_told_where_the_picture_lies_in_a_training_view(task: Detection, batch: Batch) -> None:
    """Mirrored, shrunken, and cut: by size, scale and offset."""
    views = {
        "scale": [[-0.5, 0.5], [0.25, 0.25], [2.0, 2.0]],
        "offset": [[50.0, 0.0], [0.0, 0.0], [-30.0, -10.0]],
        "size": [[40, 100], [80, 200], [40, 60]],
    }
    targets = [{name: torch.tensor(values[n]) for name, values in views.items()} for n in range(3)]
    told = Told()
    assert task.guesses(Tapped(told, plugin.ONNX, []), task.look(told, replace(only(batch, batch.index < 3), targets=targets)), batch)
    assert [part.tolist() for part in told.within] == [[0, 0, 50, 20], [0, 0, 50, 20], [0, 0, 64, 64]]


STUDENT = """[student]
name = "fasterrcnn"
backbone = "mobilenet_v3_small"
width = 8
head_width = 16
anchor_size = 8.0
proposals = 64
anchor_samples = 32
box_samples = 16
[train]
epochs = 1
batch_size = 4
workers = 0
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images with boxes, two for validation, six without labels, and a teacher with random weights."""
    monkeypatch.chdir(tmp_path)
    for place, count in (("images", 4), ("more", 6)):
        (tmp_path / place).mkdir()
        for number in range(count):
            Image.new("RGB", (64, 48), (40 * number, 200, 90)).save(tmp_path / place / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(4)]
    names = [{"id": n, "name": name} for n, name in enumerate(("circle", "square", "triangle"))]
    for split, part in (("train", images[:2]), ("val", images[2:])):
        boxes = [{"image_id": one["id"], "category_id": 1, "bbox": [8, 8, 30, 20]} for one in part]
        (tmp_path / f"instances_{split}.json").write_text(json.dumps({"images": part, "annotations": boxes, "categories": names}))
    torch.save(detector(1, frozen_norm=False).state_dict(), tmp_path / "teacher.pt")
    return tmp_path


def profile(folder: Path, method: str, data: str = "", teacher: bool = True) -> Path:
    own = STUDENT.partition("[train]")[0].replace("student", "teacher")
    taught = f'{own}checkpoint = "teacher.pt"\nallow_untrained = true\n' if teacher else ""
    data = f'[dataset]\nname = "coco"\nroot = "."\nunlabelled = "more"\nimage_size = 64\n{data}\n'
    (folder / "p.toml").write_text(f"{data}{STUDENT}{taught}[method]\n{method}\n")
    return folder / "p.toml"


def test_what_does_not_go_with_images_without_labels(registry: Registry, folder: Path) -> None:
    for method, teacher, words in (
        ('name = "none"', False, "nothing is learnt from the images without labels: there is no method"),
        ('name = "dkd"', True, "`dkd` reads labels, and some images have none"),
        ('name = "pseudo"\ntask_weight = 0.0', True, "with `task_weight = 0` there is none"),
    ):
        with pytest.raises(ProfileError, match=words):
            dry_run(load(profile(folder, method, teacher=teacher), registry=registry), registry, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("data", ["", 'train = ""'])
def test_runs_beside_labels_and_without_any(registry: Registry, folder: Path, data: str) -> None:
    for method in ('name = "pseudo"\nthreshold = 0.1', 'name = "kd"'):
        trained = train(load(profile(folder, method, data), registry=registry), registry, Tracker(), device="cpu")
        (line,) = (json.loads(text) for text in (trained.path / "metrics.jsonl").read_text().splitlines())
        terms = ["task.objectness", "task.rpn_box_reg", "task.classifier", "task.box_reg"]
        assert list(line["terms"]) == [*terms, *(["kd"] if "kd" in method else [])]
        nothing = bool(data) and "kd" in method
        assert (line["terms"]["task.objectness"] == 0) == nothing
