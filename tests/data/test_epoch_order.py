from __future__ import annotations

import pytest
import torch

from distillctl.data.order import batch_bounds, epoch_order

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_is_a_permutation(count):
    assert torch.equal(epoch_order(count, 4, 2, CPU).sort().values, torch.arange(count))


def test_depends_on_seed_and_epoch_and_nothing_else():
    state = torch.get_rng_state()
    first = epoch_order(100, 4, 2, CPU)
    torch.rand(3)
    assert torch.equal(first, epoch_order(100, 4, 2, CPU))
    others = [epoch_order(100, 4, 3, CPU), epoch_order(100, 5, 2, CPU), epoch_order(100, 2, 4, CPU)]
    assert not any(torch.equal(first, other) for other in others)
    torch.set_rng_state(state)
    epoch_order(100, 4, 2, CPU)
    assert torch.equal(state, torch.get_rng_state())


def test_every_image_comes_at_every_place_about_equally_often():
    orders = torch.stack([epoch_order(5, 1, e, CPU) for e in range(4000)])
    counts = torch.stack([(orders == i).sum(0) for i in range(5)])
    assert int((counts - 800).abs().max()) < 130  # five standard deviations


@pytest.mark.parametrize(
    ("count", "size", "smallest", "sizes"),
    [
        (10, 5, 2, [5, 5]),
        (11, 5, 2, [5, 6]),
        (12, 5, 2, [5, 5, 2]),
        (11, 5, 1, [5, 5, 1]),
        (1, 5, 2, [1]),
        (3, 1, 2, [1, 1, 1]),
        (4, 9, 2, [4]),
        (0, 9, 2, []),
        (11, 4, 4, [4, 7]),
        (12, 4, 4, [4, 4, 4]),
    ],
)
def test_batches_drop_nothing_and_none_of_one_image_is_left(count, size, smallest, sizes):
    bounds = batch_bounds(count, size, smallest=smallest)
    assert [b - a for a, b in bounds] == sizes
    assert [i for a, b in bounds for i in range(a, b)] == list(range(count))
