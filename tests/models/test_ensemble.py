"""Several classifiers as one: means of probabilities as logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillctl.models.ensemble import Ensemble, confidences, mean_logits, normalised


def test_the_mean_is_of_probabilities() -> None:
    logits = [torch.randn(5, 7), 30 * torch.randn(5, 7) + 1000]
    found = mean_logits(logits, (0.3, 0.7))
    expected = 0.3 * logits[0].double().softmax(1) + 0.7 * logits[1].double().softmax(1)
    torch.testing.assert_close(found.softmax(1), expected.float())
    torch.testing.assert_close(found.exp().sum(1), torch.ones(5))
    by_row = torch.tensor([0.3, 0.7])[:, None].expand(2, 5)
    torch.testing.assert_close(mean_logits(logits, by_row), found)


def test_sure_and_opposed_answers_stay_finite() -> None:
    sure = torch.tensor([[1e4, 0.0, -1e4]])
    found = mean_logits([sure, -sure], (0.5, 0.5))
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.5, 0.0, 0.5]]))
    assert found.isfinite().all()


def test_who_has_no_weight_does_not_count_and_need_not_be_finite() -> None:
    logits = [torch.randn(2, 3), torch.full((2, 3), torch.nan)]
    torch.testing.assert_close(mean_logits(logits, (1.0, 0.0)), logits[0].log_softmax(1))


def test_halves_are_averaged_in_float32() -> None:
    logits = [torch.randn(4, 3, dtype=torch.bfloat16) for _ in range(2)]
    found = mean_logits(logits, (0.5, 0.5))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, mean_logits([one.float() for one in logits], (0.5, 0.5)))


def test_confidences_sum_to_one_and_read_mixed_labels() -> None:
    logits, labels = [torch.randn(6, 4) for _ in range(3)], torch.tensor([0, 1, 2, 3, 0, 1])
    found = confidences(logits, labels)
    torch.testing.assert_close(found.sum(0), torch.ones(6))
    losses = torch.stack([-one.log_softmax(1)[torch.arange(6), labels] for one in logits])
    assert torch.equal(found.argmax(0), losses.argmin(0))
    torch.testing.assert_close(confidences(logits, labels, nn.functional.one_hot(labels, 4).float()), found)
    assert torch.equal(confidences(logits[:1], labels), torch.ones(1, 6))


def test_each_sees_images_as_its_own_hooks_adapt_them() -> None:
    one, other = nn.Flatten(), nn.Flatten()
    other.register_forward_pre_hook(lambda _, args: (args[0] + torch.tensor([1.0, 0.0]),))
    images = torch.randn(3, 1, 1, 2)
    found = Ensemble([one, other])(images)
    shifted = images.flatten(1) + torch.tensor([1.0, 0.0])
    torch.testing.assert_close(found.softmax(1), (images.flatten(1).softmax(1) + shifted.softmax(1)) / 2)


@pytest.mark.parametrize(("weights", "expected"), [([1.0, 0.0], (1.0, 0.0)), ([0.333, 0.333, 0.333], (1 / 3,) * 3)])
def test_weights_sum_to_one(weights: list[float], expected: tuple[float, ...]) -> None:
    assert normalised(weights) == pytest.approx(expected, rel=1e-12)
    assert normalised([1.0, 0.0]) == (1.0, 0.0)
