"""Rows are proposals, maps are levels, and the teacher says something only to what a student sampled."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from distillctl import Batch, ProfileError, RunError, Setup, Splits
from distillctl.data import train_loader
from distillctl.models.features import Tapped
from distillctl.testing import TaskContract, make_progress, make_side
from distillctl_detection import plugin
from distillctl_detection.fasterrcnn import FasterRCNN, Proposals
from distillctl_detection.options import FasterRCNNOptions, ShapesOptions
from distillctl_detection.sampling import SeededSampler
from distillctl_detection.shapes import build as build_shapes
from distillctl_detection.task import Detection
from distillctl_dkd.method import DKD
from distillctl_dkd.options import DKDOptions

ROWS = 8


def shapes() -> Splits:
    return build_shapes(ShapesOptions(train=12, val=2, test=8, image_size=64), 0)


def detector(seed: int = 0, width: int = 8, **options: Any) -> FasterRCNN:
    torch.manual_seed(seed)
    tiny = {"backbone": "mobilenet_v3_small", "head_width": 16, "anchor_size": 8.0, "proposals": 64, "anchor_samples": 32}
    return FasterRCNN(3, FasterRCNNOptions(**{**tiny, "width": width, "box_samples": ROWS, "frozen_norm": True, **options}))


def tapped(model: nn.Module, *names: str) -> Tapped:
    return Tapped(model, plugin.FASTERRCNN, names)


@pytest.fixture
def task() -> Detection:
    return Detection(shapes())


@pytest.fixture
def batch(task: Detection) -> Batch:
    found = next(iter(train_loader(task.data, batch_size=6, seed=0, device=torch.device("cpu"), workers=0).epoch(0)))
    return replace(found, seeds=found.index * 7 + 1)


class TestDetection(TaskContract):
    task = Detection

    def splits(self, folder: Path) -> Splits:
        return shapes()

    def model(self, outputs: int) -> nn.Module:
        assert outputs == 3
        return detector(score_threshold=0.3, frozen_norm=False, anchor_samples=10_000, box_samples=10_000)  # nothing is drawn


def test_rows_and_maps(task: Detection, batch: Batch) -> None:
    student, teacher = tapped(detector(), "p3", "c4"), tapped(detector(1, 16).eval(), "p3")
    outputs = task.forward(student, batch)
    seen, given = task.seen(outputs, batch), outputs["logits"]
    rows, maps = seen["rows"], seen["images"]
    assert rows.batch.rows == len(given.labels) == 6 * ROWS
    assert rows.batch.count == 6
    assert (rows.batch.start, rows.batch.total) == (0, 0)
    assert torch.equal(rows.batch.labels, given.labels)
    assert list(rows.features) == ["logits"]
    assert rows.features["logits"].shape == (6 * ROWS, 4)
    assert maps.batch.rows == 6
    assert {name: value.shape[2] for name, value in maps.features.items()} == {"p3": 8, "c4": 4}
    with torch.no_grad():
        look = task.look(teacher, batch)
        answer = task.seen(task.answer(teacher, look, outputs), batch)
    torch.testing.assert_close(answer["images"].features, task.seen(look, batch)["images"].features)
    assert task.seen(look, batch)["rows"].features == {}
    expected = teacher.model.classify(teacher.model(batch.images, pyramid_only=True), given.boxes, 64)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(answer["rows"].features["logits"], expected)


def test_the_first_class_is_not_the_background(task: Detection, batch: Batch) -> None:
    """Objects of class 0 are what they are matched with as 1, and all else is background."""
    one = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([0]), "crowd": torch.tensor([False])}
    outputs = task.forward(tapped(detector()), replace(batch, targets=[one] * batch.count))
    assert set(task.seen(outputs, batch)["rows"].batch.labels.tolist()) == {0, 1}
    assert one["labels"].tolist() == [0]


def test_the_teacher_proposes_nothing(task: Detection, batch: Batch) -> None:
    teacher = detector(1, 16).eval()
    ran: list[str] = []
    for name in ("backbone", "rpn", "roi_heads.box_head"):
        teacher.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    outputs = task.forward(tapped(detector()), batch)
    look = task.look(tapped(teacher), batch)
    assert ran == ["backbone"]
    task.answer(tapped(teacher), look, outputs)
    assert ran == ["backbone", "roi_heads.box_head"]


def test_figures_class_by_class() -> None:
    """Circles are found where they are, squares half as high as they are, and the picture has no triangle."""
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 56.0, 56.0]])
    found = [{"boxes": boxes * torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0.7]]), "labels": torch.tensor([0, 1]), "scores": torch.ones(2)}]
    target = {"boxes": boxes, "labels": torch.tensor([0, 1]), "crowd": torch.zeros(2, dtype=torch.bool), "area": torch.full((2,), 256.0)}
    target |= {"image_id": torch.tensor(1), "scale": torch.ones(2), "offset": torch.zeros(2)}
    task = Detection(shapes())
    meter = task.meter()
    meter.add(
        found, Batch(torch.zeros(1, 3, 64, 64), torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), targets=[target])
    )
    meter.merge([meter.state()])
    lines = task.breakdown(meter.result())
    share = (56 * 0.7 - 16) / 40  # of the square, which counts up to a threshold of 0.55
    assert 0.55 < share < 0.6
    assert [line.pop("ap") for line in lines] == [pytest.approx(1.0), pytest.approx(0.2), None]
    assert lines == [
        {"name": "circle", "count": 1, "ap50": pytest.approx(1.0)},
        {"name": "square", "count": 1, "ap50": pytest.approx(1.0)},
        {"name": "triangle", "count": 0, "ap50": None},
    ]


def test_what_a_deployed_detector_says(task: Detection) -> None:
    """The detections that an evaluation judges, the likeliest first."""
    model = detector(score_threshold=0.2).eval()
    place = {"scale": torch.tensor([0.5, 0.25]), "offset": torch.tensor([3.0, 5.0])}
    batch = Batch(torch.randn(2, 3, 64, 64), torch.empty(0, dtype=torch.int64), torch.arange(2), targets=[place] * 2)
    with torch.no_grad():
        found, said = task.predict(model, batch), Detection.respond(model, batch, outputs=3)
        few = Detection.respond(model, batch, outputs=3, top=2)
    for one, answers in zip(found, said, strict=True):
        assert answers is not None
        assert len(answers) == len(one["scores"]) > 2
        assert [answer.score for answer in answers] == sorted(one["scores"].tolist(), reverse=True)
        assert sorted((answer.score, answer.label, *(answer.box or ())) for answer in answers) == sorted(
            (score, label, *box)
            for score, label, box in zip(one["scores"].tolist(), one["labels"].tolist(), one["boxes"].tolist(), strict=True)
        )
    assert few == [answers[:2] for answers in said if answers is not None]
    for name in ("boxes", "scores"):
        broken = {"boxes": torch.ones(1, 4), "labels": torch.tensor([1]), "scores": torch.ones(1)}
        broken[name] = broken[name] * torch.inf
        says = Fixed([broken, {name: value[:0] for name, value in broken.items()}])
        assert Detection.respond(says, batch, outputs=3) == [None, []]


def test_a_view_and_its_mirror_image_are_merged(task: Detection) -> None:
    """What both have found is there once with the higher score; what one has found, or is of another class, stays."""
    answers = [
        {"boxes": torch.tensor([[4.0, 8.0, 24.0, 28.0]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])},
        {
            "boxes": torch.tensor([[41.0, 8.0, 61.0, 28.0], [40.0, 8.0, 60.0, 28.0], [0.0, 40.0, 10.0, 50.0]]),
            "labels": torch.tensor([1, 2, 3]),
            "scores": torch.tensor([0.75, 0.25, 0.125]),
        },
    ]
    shown: list[Tensor] = []

    class Views(nn.Module):
        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            shown.append(images)
            return [answers[len(shown) - 1]]

    images = torch.randn(1, 2, 3, 64, 64)
    place = {"scale": torch.tensor([0.5, 0.5]), "offset": torch.zeros(2)}
    (found,) = task.predict(Views(), Batch(images, torch.empty(0, dtype=torch.int64), torch.arange(1), targets=[place]))
    assert [torch.equal(one, images[:, view]) for view, one in enumerate(shown)] == [True, True]
    assert found["scores"].tolist() == [0.75, 0.25, 0.125]
    assert found["labels"].tolist() == [0, 1, 2]
    assert found["boxes"].tolist() == [[6.0, 16.0, 46.0, 56.0], [8.0, 16.0, 48.0, 56.0], [108.0, 80.0, 128.0, 100.0]]


class Fixed(nn.Module):
    """Gives what it was made of."""

    def __init__(self, answers: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return self.answers


def test_nothing_is_learnt_from_crowds(task: Detection, batch: Batch) -> None:
    def losses(crowd: bool, moved: float) -> dict[str, Tensor]:
        targets = []
        for target in batch.targets:
            more = torch.tensor([[2.0, 2.0, 40.0 + moved, 40.0]])
            boxes, labels = torch.cat([target["boxes"], more]), torch.cat([target["labels"], torch.tensor([1])])
            targets.append({**target, "boxes": boxes, "labels": labels, "crowd": torch.cat([target["crowd"], torch.tensor([crowd])])})
        return task.label_loss(task.forward(tapped(detector()), replace(batch, targets=targets)), batch)

    plain = task.label_loss(task.forward(tapped(detector()), batch), batch)
    torch.testing.assert_close(losses(True, 0.0), plain)
    torch.testing.assert_close(losses(True, 9.0), plain)
    assert losses(False, 0.0)["box_reg"] != plain["box_reg"]


def weighted(task: Detection, student: Tapped, teacher: Tapped, batch: Batch, cuts: list[slice]) -> dict[str, Tensor]:
    """Gradients of label loss and DKD of a batch in pieces, each by its share of the images."""
    side = {name: make_side(name, {"logits": (4,)}) for name in ("student", "teacher")}
    method = DKD(DKDOptions(alpha=1.0, beta=0.25, temperature=1.0), Setup(side["student"], side["teacher"], 4, task.data.train.labels))
    student.zero_grad()
    for cut in cuts:
        assert batch.seeds is not None
        piece = replace(batch, images=batch.images[cut], index=batch.index[cut], targets=batch.targets[cut], seeds=batch.seeds[cut])
        outputs = task.forward(student, piece)
        with torch.no_grad():
            answer = task.answer(teacher, task.look(teacher, piece), outputs)
        rows = task.seen(outputs, piece)["rows"]
        terms = method.terms(rows.batch, rows.features, task.seen(answer, piece)["rows"].features, make_progress())
        total = torch.stack([*task.label_loss(outputs, piece).values(), *terms.values()]).sum()
        (total * (piece.count / batch.count)).backward()
    return {name: parameter.grad.clone() for name, parameter in student.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("seeded", [True, False])
def test_pieces_of_a_batch_have_its_gradients(task: Detection, batch: Batch, monkeypatch: pytest.MonkeyPatch, seeded: bool) -> None:
    """With the samplers of torchvision they have not, which says that the test would see it."""
    student, teacher = tapped(detector()), tapped(detector(1, 16).eval())
    if not seeded:
        monkeypatch.setattr(SeededSampler, "__call__", BalancedPositiveNegativeSampler.__call__)
    cut = weighted(task, student, teacher, batch, [slice(0, 2), slice(2, 6)])
    whole = weighted(task, student, teacher, batch, [slice(0, 6)])
    assert len(whole) > 50
    norm = torch.stack([value.norm() for value in whole.values()]).norm()
    difference = torch.stack([(value - cut[name]).norm() for name, value in whole.items()]).norm()
    assert (difference < 1e-5 * norm) if seeded else (difference > 1e-2 * norm)


def test_dkd_on_proposals_is_that_of_its_formula(task: Detection, batch: Batch) -> None:
    """α · KL of target and rest + β · KL among the others, at T = 1, as loops in float64."""
    student, teacher = tapped(detector()), tapped(detector(1, 16).eval())
    outputs = task.forward(student, batch)
    with torch.no_grad():
        answer = task.answer(teacher, task.look(teacher, batch), outputs)
    here, mine = task.seen(outputs, batch)["rows"]
    theirs = task.seen(answer, batch)["rows"].features
    side = {name: make_side(name, {"logits": (4,)}) for name in ("student", "teacher")}
    method = DKD(DKDOptions(alpha=1.0, beta=0.25, temperature=1.0), Setup(side["student"], side["teacher"], 4, task.data.train.labels))
    found = torch.stack(list(method.terms(here, mine, theirs, make_progress()).values())).sum().detach()
    total = 0.0
    for s, t, label in zip(mine["logits"].tolist(), theirs["logits"].tolist(), here.labels.tolist(), strict=True):
        p, q = ([math.exp(v) / sum(math.exp(w) for w in z) for v in z] for z in (t, s))
        target = sum(a * math.log(a / b) for a, b in ((p[label], q[label]), (1 - p[label], 1 - q[label])))
        rest = 0.0
        for k in range(4):
            if k != label:
                a, b = p[k] / (1 - p[label]), q[k] / (1 - q[label])
                rest += a * math.log(a / b)
        total += 1.0 * target + 0.25 * rest
    assert float(found) == pytest.approx(total / len(here.labels), rel=1e-4)


def test_boxes_go_back_to_the_picture(task: Detection, batch: Batch) -> None:
    model = detector(score_threshold=0.0).eval()
    moved = [{**target, "scale": torch.tensor([0.5, 2.0]), "offset": torch.tensor([3.0, -4.0])} for target in batch.targets]
    plain, found = task.predict(model, batch), task.predict(model, replace(batch, targets=moved))
    assert min(len(one["boxes"]) for one in plain) > 0
    for one, other in zip(plain, found, strict=True):
        view = other["boxes"] * torch.tensor([0.5, 2.0, 0.5, 2.0]) + torch.tensor([3.0, -4.0, 3.0, -4.0])
        torch.testing.assert_close(view, one["boxes"])
        assert ((one["labels"] >= 0) & (one["labels"] < 3)).all()


def test_shapes_are_measured_in_a_sample(task: Detection) -> None:
    shapes = tapped(detector(), "p2", "p6", "c5").probe((3, 64, 64), task)
    assert shapes == {"logits": (4,), "p2": (8, 16, 16), "p6": (8, 1, 1), "c5": (576, 2, 2)}


@pytest.mark.parametrize("names", [["roi_heads.box_head"], ["roi_heads.box_predictor.cls_score"]])
def test_features_of_proposals_are_no_maps(task: Detection, names: list[str]) -> None:
    with pytest.raises(RunError, match="has no map for each image"):
        tapped(detector(), *names).probe((3, 64, 64), task)


def test_what_cannot_be_distilled_is_refused(task: Detection) -> None:
    with pytest.raises(RunError, match="the model is not a detector"):
        Tapped(nn.Sequential(nn.Conv2d(3, 4, 1)), replace(plugin.FASTERRCNN, stages={}), []).probe((3, 64, 64), task)
    resized = detector()
    resized.register_forward_pre_hook(lambda _module, args: (nn.functional.interpolate(args[0], scale_factor=2), *args[1:]))
    with pytest.raises(RunError, match="sees images at 128 pixels, where the views and their boxes have 64"):
        tapped(resized).probe((3, 64, 64), task)
    assert task.check_teacher(3, ["circle", "square", "triangle"], "place") == ()
    for classes in (["circle", "square"], ["square", "circle", "triangle"]):
        with pytest.raises(ProfileError, match="they must be the same, in one order"):
            task.check_teacher(len(classes), classes, "place")


def test_proposals_hold_no_losses_of_their_own() -> None:
    assert dict(Proposals(torch.zeros(1, 2), []).losses) == {}


@pytest.mark.parametrize(
    "broken", ["rpn.head.cls_logits.bias", "roi_heads.box_predictor.bbox_pred.bias", "backbone.fpn.inner_blocks.0.0.bias"]
)
def test_answers_that_are_not_finite_are_told(task: Detection, batch: Batch, broken: str) -> None:
    """torchvision finds nothing there, or less, and says so of no image."""
    model = detector(score_threshold=0.0).eval()
    with torch.no_grad():
        model.get_parameter(broken)[-1] = torch.nan
        with pytest.raises(RunError, match="the answers of the detector are not finite") as error:
            task.predict(model, batch)
        assert task.respond(model, batch, outputs=3) == [None] * batch.count
    assert error.value.problems[0].hint == "are its weights whole, or did its training diverge?"
    assert not model.rpn.head._forward_hooks
