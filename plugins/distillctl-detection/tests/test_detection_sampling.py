"""What is drawn of an image depends on its seed alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from distillctl_detection.sampling import SeededSampler

LABELS = [torch.tensor([-1] * 10 + [0] * 60 + [1, 2, 3] * 5), torch.tensor([0] * 30 + [1] * 4), torch.zeros(40, dtype=torch.int64)]


def draw(labels: list[Tensor], seeds: list[int], stream: int = 0) -> list[tuple[Tensor, Tensor]]:
    sampler = SeededSampler(20, 0.25, stream)
    sampler.seeds = seeds
    return list(zip(*sampler(labels), strict=True))


def test_as_many_are_drawn_as_torchvision_draws() -> None:
    theirs = BalancedPositiveNegativeSampler(20, 0.25)(LABELS)
    for (positive, negative), one, other, labels in zip(draw(LABELS, [1, 2, 3]), *theirs, LABELS, strict=True):
        assert (positive.sum(), negative.sum()) == (one.sum(), other.sum())
        assert (positive.dtype, positive.shape) == (one.dtype, one.shape)
        assert (labels[positive.bool()] > 0).all()
        assert (labels[negative.bool()] == 0).all()


def test_other_images_and_the_global_generator_do_not_count() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = draw(LABELS, [7, 8, 9])
    assert torch.equal(torch.get_rng_state(), before)
    (alone,) = draw(LABELS[1:2], [8])
    assert all(torch.equal(one, other) for one, other in zip(alone, whole[1], strict=True))


def test_seeds_and_samplers_differ() -> None:
    first, again, other, second = (
        draw(LABELS[:1], [seed], stream)[0][1].nonzero()[:, 0].tolist() for seed, stream in ((5, 0), (5, 0), (6, 0), (5, 1))
    )
    assert first == again
    assert other != first
    assert second != first
