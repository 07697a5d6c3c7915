from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Batch
from distillctl.builtin.classification_task import Classification
from distillctl.engine.evaluate import evaluate, resized
from distillctl.errors import RunError


class Lookup(nn.Module):
    """Returns as logits what stands in the images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return images.flatten(1)


def task(classes: int) -> Classification:
    images = ArrayImages(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return Classification(Splits(images, None, None, tuple(f"c{k}" for k in range(classes)), (0.5,) * 3, (0.5,) * 3, View(1)))


def guesses(labels: Tensor, classes: int) -> float:
    return task(classes).floor(ArrayImages(torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8), labels))


def batch(logits: Tensor, labels: Tensor) -> Batch:
    return Batch(logits[:, :, None, None], labels, torch.arange(len(labels)))


def test_against_plain_loops() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7), torch.randint(0, 6, (50,))
    model = Lookup().train()
    result = evaluate(task(7), model, [batch(logits[:32], labels[:32]), batch(logits[32:], labels[32:])])
    assert model.training
    right = five = 0
    loss = 0.0
    by_class: dict[int, list[bool]] = {}
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        order = sorted(range(7), key=lambda c: -row[c])
        right += order[0] == label
        five += label in order[:5]
        loss += math.log(sum(math.exp(v) for v in row)) - row[label]
        by_class.setdefault(label, []).append(order[0] == label)
    metrics = result.figures
    assert metrics["top1"] == right / 50
    assert metrics["top5"] == five / 50
    assert metrics["loss"] == pytest.approx(loss / 50, rel=1e-6)
    assert metrics["mpa"] == pytest.approx(sum(sum(v) / len(v) for v in by_class.values()) / len(by_class))
    assert result.answers.total.tolist() == [len(by_class.get(c, [])) for c in range(7)]
    assert metrics["count"] == 50


def test_views_are_averaged_as_logits() -> None:
    views = torch.tensor([[[0.0, 3.0], [5.0, 0.0]]])[..., None, None]  # one image, two views: mean logits favour class 0
    result = evaluate(task(2), Lookup(), [Batch(views, torch.tensor([0]), torch.tensor([0]))])
    assert result.figures["top1"] == 1.0
    assert result.figures["loss"] == pytest.approx(math.log(1 + math.exp(1.5 - 2.5)))


def test_no_images_and_infinite_logits_are_refused() -> None:
    with pytest.raises(RunError, match="no image"):
        evaluate(task(2), Lookup(), [])
    with pytest.raises(RunError, match="not finite"):
        evaluate(task(2), Lookup(), [batch(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))])


def test_chance_level_knows_unbalanced_classes() -> None:
    assert guesses(torch.tensor([0] * 90 + [1] * 10), 2) > 0.9
    balanced = guesses(torch.arange(10_000) % 100, 100)
    assert 0.01 < balanced < 0.014


@pytest.mark.parametrize(("labels", "classes", "chance"), [([0] * 9 + [1], 2, 0.9), ([0, 1, 2, 3], 4, 0.25), ([0], 2, 1.0)])
def test_chance_is_what_guessing_reaches_without_luck(labels: list[int], classes: int, chance: float) -> None:
    images = ArrayImages(torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8), torch.tensor(labels))
    assert task(classes).chance(images) == pytest.approx(chance)
    assert task(classes).floor(images) >= chance


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", ["tf32", "ieee"])
def test_convolutions_on_a_gpu_are_not_rounded(before: str, fails: bool) -> None:
    """TF32 is torch's default there; what was set before is back afterwards, for both of torch's interfaces to it."""
    seen: list[str] = []
    convolutions = torch.backends.cudnn.conv

    class Looks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(convolutions.fp32_precision)
            if fails:
                raise KeyError("of the test")
            return images.flatten(1)

    default = convolutions.fp32_precision
    convolutions.fp32_precision = before
    try:
        with pytest.raises(KeyError, match="of the test") if fails else nullcontext():
            evaluate(task(2), Looks(), [batch(torch.randn(3, 2), torch.tensor([0, 1, 1]))])
        assert (seen, convolutions.fp32_precision) == (["ieee"], before)
    finally:
        convolutions.fp32_precision = default
    assert torch.backends.cudnn.allow_tf32


class Grows(nn.Module):
    """Its logits say how large the images are, and what colour."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([torch.full((len(images),), float(images.shape[-1])), images.mean((1, 2, 3))], 1)


def test_answers_of_several_sizes_are_averaged() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = task(2)
    given: list[Tensor] = []
    meter = found.meter()
    add = meter.add

    def keep(predictions: Tensor, one: Batch) -> None:
        given.append(predictions)
        add(predictions, one)

    meter.add = keep  # type: ignore[method-assign]
    evaluate(found, Grows(), [Batch(images, torch.tensor([0, 1, 0]), torch.arange(3))], meter=meter, sizes=(4, 8, 15))
    means = [F.interpolate(images, size=(s, s), mode="bilinear", antialias=True).mean((1, 2, 3)) for s in (4, 8, 15)]
    torch.testing.assert_close(given[0], torch.stack([torch.full((3,), 9.0), torch.stack(means).mean(0)], 1))
    assert resized(images, 8) is images
