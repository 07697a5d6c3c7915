"""RetinaNet, FCOS and SSDlite are torchvision's: names, losses, detections; and what methods see of them."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large

from distillctl import Batch, RunError, Setup, Splits
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import KDOptions
from distillctl.data import train_loader
from distillctl.models.features import Tapped
from distillctl.testing import TaskContract, make_progress, make_side
from distillctl_detection import plugin
from distillctl_detection.backbones import pyramid
from distillctl_detection.detector import Detector, NotFiniteError, Proposals, finite_heads
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.one_stage import FCOS, RetinaNet, SSDLite
from distillctl_detection.options import FasterRCNNOptions, FCOSOptions, RetinaNetOptions, ShapesOptions, SSDLiteOptions
from distillctl_detection.shapes import build as build_shapes
from distillctl_detection.task import Detection

pytestmark = pytest.mark.slow

SIDE = 64
CLASSES = 3
ALL = ("retinanet", "fcos", "ssdlite")


def build(name: str, seed: int = 0, **options: Any) -> Detector:
    torch.manual_seed(seed)
    if name == "retinanet":
        return RetinaNet(CLASSES, RetinaNetOptions(**{"backbone": "mobilenet_v3_small", "width": 8, "anchor_size": 16.0, **options}))
    if name == "fcos":
        return FCOS(CLASSES, FCOSOptions(**{"backbone": "mobilenet_v3_small", "width": 64, **options}))
    return SSDLite(CLASSES, SSDLiteOptions(**{"width_mult": 0.25, **options}))


class AsItIs(nn.Module):
    """In place of torchvision's transform: images as they are."""

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        listed = torchvision.models.detection.image_list.ImageList(torch.stack(images), [(SIDE, SIDE)] * len(images))
        return listed, targets

    def postprocess(self, found: Any, *_: Any) -> Any:
        return found


def reference(name: str, ours: Detector) -> nn.Module:
    """Torchvision's own with the same weights."""
    if name == "ssdlite":
        torch.manual_seed(0)
        body = torchvision.models.mobilenet_v3_large(
            weights=None, width_mult=0.25, reduced_tail=True, norm_layer=partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        )
        made = torchvision.models.detection.ssdlite
        features = made._mobilenet_extractor(body, 6, partial(nn.BatchNorm2d, eps=0.001, momentum=0.03))
        anchors = torchvision.models.detection.anchor_utils.DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
        channels = torchvision.models.detection._utils.retrieve_out_channels(features, (SIDE, SIDE))
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        head = made.SSDLiteHead(channels, anchors.num_anchors_per_location(), 1 + CLASSES, norm)
        kwargs = {"score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300, "head": head}
        model = torchvision.models.detection.ssd.SSD(features, anchors, (SIDE, SIDE), 1 + CLASSES, **kwargs)
    else:
        width = 8 if name == "retinanet" else 64
        backbone = pyramid("mobilenet_v3_small", width=width, trained=5, frozen_norm=False, one_stage=True)
        if name == "retinanet":
            sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (16, 32, 64, 128, 256))
            anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
            model = torchvision.models.detection.RetinaNet(backbone, CLASSES, anchor_generator=anchors)
        else:
            model = torchvision.models.detection.FCOS(backbone, CLASSES)
    model.load_state_dict(ours.state_dict())
    model.transform = AsItIs()
    return model


def targets(shift: int = 0) -> list[dict[str, Tensor]]:
    boxes = ([[4.0, 6.0, 30.0, 40.0], [32.0, 8.0, 60.0, 20.0]], [[0.0, 0.0, 64.0, 64.0]], [])
    labels = ([1, 3], [2], [])
    return [
        {"boxes": torch.tensor(box).reshape(-1, 4), "labels": torch.tensor(label, dtype=torch.int64) + shift}
        for box, label in zip(boxes, labels, strict=True)
    ]


def theirs_of(name: str) -> list[dict[str, Tensor]]:
    """Labels as torchvision's class counts them: from 0 where there is no background."""
    return targets(0 if name == "ssdlite" else -1)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ALL)
def test_losses_are_those_of_torchvision(name: str) -> None:
    ours = build(name)
    theirs = reference(name, ours)
    found, expected = ours(images(), targets(), [0, 1, 2]), theirs(list(images()), theirs_of(name))
    assert set(found.losses) == set(expected)
    for key, value in found.losses.items():
        assert value > 0, key
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-6)
    for one in (found.losses.values(), expected.values()):
        sum(one).backward()  # type: ignore[arg-type, union-attr]
    gradients = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_detections_are_those_of_torchvision(name: str) -> None:
    ours = build(name).eval()
    theirs = reference(name, ours).eval()
    ours.score_thresh = theirs.score_thresh = 0.001
    found, expected = ours(images()), theirs(list(images()))
    assert sum(len(one["boxes"]) for one in found) > 10
    for mine, one in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, {**one, "labels": one["labels"] + (name != "ssdlite")})


@pytest.mark.parametrize("name", ALL)
def test_rows_are_what_is_matched_and_three_times_the_background(name: str) -> None:
    """By hand from the published rule: per image, matched anchors, then those of the background that are most taken for an object."""
    model = build(name)
    found = model(images(), targets(), [0, 1, 2])
    assert isinstance(found, Proposals)
    assert found.labels is not None
    levels = model(images(), pyramid_only=True)
    every = model.head.classification_head(list(levels.values()))  # type: ignore[union-attr, operator]
    assert [len(places.unique()) for places in found.boxes] == [len(places) for places in found.boxes]
    assert len(found.boxes[2]) == 3, "an image without objects gives three"
    rows = 0
    for number, places in enumerate(found.boxes):
        logits = every[number]
        count = len(places) if name == "ssdlite" else len(places) * CLASSES
        labels = found.labels[rows : rows + count].reshape(len(places), -1)
        seen = found.logits[rows : rows + count]
        rows += count
        objects = labels.amax(1) > 0
        if number < 2:
            assert 3 * int(objects.sum()) == int((~objects).sum())
            assert set((labels[objects] if name == "ssdlite" else labels[objects].argmax(1) + 1).flatten().tolist()) <= set(
                targets()[number]["labels"].tolist()
            )
        if name == "ssdlite":
            torch.testing.assert_close(seen, logits[places])
            wrong = [-math.log(math.exp(one[0]) / sum(math.exp(v) for v in one)) for one in logits.tolist()]
        else:
            torch.testing.assert_close(seen[:, 1], logits[places].flatten())
            assert (seen[:, 0] == 0).all()
            wrong = [max(one) for one in logits.tolist()]
            assert (labels.sum(1) <= 1).all()
        rest = [wrong[at] for at in range(len(wrong)) if at not in set(places.tolist())]
        worst = min(wrong[int(at)] for at in places[~objects])
        above = sum(value > worst + 1e-6 for value in rest)
        assert above <= (0 if name != "retinanet" else 40), "between two thresholds, nothing is learnt"
    assert rows == len(found.labels) == len(found.logits)


def test_nothing_is_learnt_between_the_thresholds() -> None:
    """RetinaNet ignores anchors that overlap by 0.4 to 0.5: they are no rows either."""
    model = build("retinanet")
    found = model(images(), targets(), [0, 1, 2])
    listed = torchvision.models.detection.image_list.ImageList(images(), [(SIDE, SIDE)] * 3)
    anchors = model.anchor_generator(listed, list(model(images(), pyramid_only=True).values()))  # type: ignore[operator]
    for places, its, target in zip(found.boxes[:2], anchors, targets(), strict=False):
        best = torchvision.ops.box_iou(target["boxes"], its).amax(0)[places]
        objects = len(places) // 4
        assert (best[objects:] < 0.4).all()


@pytest.mark.parametrize("name", ALL)
def test_a_teacher_answers_at_the_places_of_the_student(name: str) -> None:
    """At its own places a detector says what it said in training."""
    model = build(name).eval()
    found = model(images(), targets(), [0, 1, 2])
    answer = model.answer(model(images(), pyramid_only=True), found)
    torch.testing.assert_close(answer.logits, found.logits)
    assert answer.labels is None
    assert dict(answer.losses) == {}


def test_other_anchors_are_refused() -> None:
    tiny = {"backbone": "mobilenet_v3_small", "width": 8, "head_width": 16, "proposals": 16, "box_samples": 8}
    others = [
        (build("retinanet"), build("retinanet", anchor_size=8.0)),
        (build("fcos"), build("retinanet", width=32)),
        (build("ssdlite"), FasterRCNN(CLASSES, FasterRCNNOptions(**tiny))),
    ]
    for one, other in others:
        for student, teacher in ((one, other), (other, one)):
            found, levels = student(images(), targets(), [0, 1, 2]), teacher(images(), pyramid_only=True)
            with pytest.raises(RunError, match="student and teacher have different anchors"):
                teacher.answer(levels, found)


def test_kd_on_sigmoids_is_the_divergence_of_bernoulli_distributions() -> None:
    """As loops in float64: Σ over places and classes of p log p/q + (1 − p) log (1 − p)/(1 − q), by their number, times T²."""
    student, teacher = build("fcos"), build("fcos", 1).eval()
    with torch.no_grad():
        for model in (student, teacher):
            model.head.classification_head.cls_logits.weight.mul_(10)  # type: ignore[union-attr, operator]
    task = Detection(build_shapes(ShapesOptions(train=4, val=2, test=8, image_size=SIDE), 0))
    found = student(images(), targets(), [0, 1, 2])
    answer = teacher.answer(teacher(images(), pyramid_only=True), found)
    side = {name: make_side(name, {"logits": (2,)}) for name in ("student", "teacher")}
    method = KD(KDOptions(temperature=2.0), Setup(side["student"], side["teacher"], 2, task.data.train.labels))
    batch = next(iter(train_loader(task.data, batch_size=3, seed=0, device=torch.device("cpu"), workers=0).epoch(0)))
    seen = task.seen({"logits": found}, batch)["rows"]
    terms = method.terms(seen.batch, seen.features, {"logits": answer.logits}, make_progress())
    total = 0.0
    for s, t in zip(found.logits[:, 1].tolist(), answer.logits[:, 1].tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-t / 2)), 1 / (1 + math.exp(-s / 2))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    expected = 4 * total / len(found.logits)
    assert expected > 1e-3
    assert float(terms[""].detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_answers_that_are_not_finite_are_noticed(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        with finite_heads(model):
            model(images())
        list(model.head.parameters())[-1][-1] = torch.nan
        with pytest.raises(NotFiniteError), finite_heads(model):
            model(images())


@pytest.mark.parametrize("name", ALL)
def test_half_precision_moves_no_box(name: str) -> None:
    model = build(name).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(level.dtype == torch.bfloat16 for level in model(images(), pyramid_only=True).values())
        found = model(images(), targets(), [0, 1, 2])
    assert found.logits.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in found.losses.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("shape", "why"), [((48, 48), "multiples of 32 pixels, not 48×48"), ((64, 96), "square views, not 64×96")])
def test_views_of_other_shapes_are_refused(name: str, shape: tuple[int, int], why: str) -> None:
    with pytest.raises(RunError, match=why):
        build(name)(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("name", ALL)
def test_views_that_fill_a_part_of_their_image_are_refused(name: str) -> None:
    task = Detection(build_shapes(ShapesOptions(train=1, val=1, test=1, image_size=64), 0))
    target = {"boxes": torch.ones(0, 4), "labels": torch.ones(0), "crowd": torch.ones(0) > 0, "view": torch.tensor([64, 48])}
    batch = Batch(torch.zeros(1, 3, 64, 64), torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), targets=[target])
    with pytest.raises(RunError, match="views that fill their image"):
        task.forward(build(name), batch)


@pytest.mark.parametrize("name", ALL)
def test_names_are_those_of_torchvisions_builder(name: str) -> None:
    with torch.device("meta"):
        if name == "ssdlite":
            ours: nn.Module = SSDLite(90, SSDLiteOptions())
            theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        elif name == "fcos":
            ours = FCOS(91, FCOSOptions())
            theirs = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
        else:
            ours = RetinaNet(91, RetinaNetOptions())
            theirs = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "spec", "stages"),
    [
        ("retinanet", plugin.RETINANET, ("p3", "p4", "p5", "p6", "p7", "c3", "c4", "c5")),
        ("fcos", plugin.FCOS, ("p3", "p4", "p5", "p6", "p7", "c3", "c4", "c5")),
        ("ssdlite", plugin.SSDLITE, ("p4", "p5", "p6", "p7", "p8", "p9")),
    ],
)
def test_stages_have_the_strides_of_their_numbers(name: str, spec: Any, stages: tuple[str, ...]) -> None:
    model = build(name)
    tapped = Tapped(model, spec, ["stages", *spec.aside])
    assert tapped.names == stages
    maps = tapped(torch.randn(1, 3, 128, 128), pyramid_only=True)  # of one image, some maps of which have one value
    for stage in stages:
        assert maps[stage].shape[-1] == math.ceil(128 / 2 ** int(stage[1])), stage
    for stage, level in zip([one for one in stages if one[0] == "p"], maps["logits"].values(), strict=True):
        torch.testing.assert_close(maps[stage], level)
    assert tapped.probe((3, SIDE, SIDE), Detection(build_shapes(ShapesOptions(train=2, val=2, test=2), 0)))["logits"] == (
        (4,) if name == "ssdlite" else (2,)
    )


def test_maps_before_the_last_activation_of_ssdlite() -> None:
    model = build("ssdlite")
    tapped = Tapped(model, plugin.SSDLITE, ["stages", "stages:pre"])
    maps = tapped(torch.randn(2, 3, SIDE, SIDE), pyramid_only=True)
    for stage in ("p4", "p5", "p6", "p7", "p8", "p9"):
        activation = nn.Hardswish() if stage < "p6" else nn.ReLU6()
        torch.testing.assert_close(activation(maps[f"{stage}:pre"]), maps[stage])


class _Contract(TaskContract):
    task = Detection
    name = ""

    def splits(self, folder: Path) -> Splits:
        return build_shapes(ShapesOptions(train=12, val=2, test=8, image_size=SIDE), 0)

    def model(self, outputs: int) -> nn.Module:
        options = {"width_mult": 0.5} if self.name == "ssdlite" else {}
        return build(self.name, 1, score_threshold=0.011 if self.name == "retinanet" else 0.1, **options)


class TestRetinaNet(_Contract):
    name = "retinanet"


class TestFCOS(_Contract):
    name = "fcos"


class TestSSDLite(_Contract):
    name = "ssdlite"
