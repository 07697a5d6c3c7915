from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import distillctl_crd.losses
from distillctl_crd.losses import gather_and_sum, gather_rows, scatter_and_multiply, score_all, scores, sum_rows


def test_both_ways_give_the_inner_products() -> None:
    v, bank, rows = torch.randn(3, 4, dtype=torch.float64), torch.randn(10, 4, dtype=torch.float64), torch.randint(10, (3, 5))
    expected = [
        [sum(x * y for x, y in zip(bank[i].tolist(), a.tolist(), strict=True)) for i in r] for a, r in zip(v, rows.tolist(), strict=True)
    ]
    for values in (score_all(v, bank, rows), gather_rows(v, bank, rows), scores(v, bank, rows)):
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_portions_of_anchors_are_put_together_in_order() -> None:
    """2²¹ floats are gathered at a time: here one anchor's rows."""
    v, bank, rows = torch.randn(3, 128), torch.randn(50, 128), torch.randint(50, (3, 10_000))
    torch.testing.assert_close(gather_rows(v, bank, rows), score_all(v, bank, rows), rtol=1e-4, atol=1e-4)
    small = rows[:, :7]
    torch.testing.assert_close(gather_rows(v, bank, small), score_all(v, bank, small), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("negatives", "way"), [(5, "score_all"), (4, "gather_rows")])
def test_way_depends_on_the_size_of_the_bank(monkeypatch: pytest.MonkeyPatch, negatives: int, way: str) -> None:
    calls = []
    for name in ("score_all", "gather_rows"):
        function = getattr(distillctl_crd.losses, name)
        monkeypatch.setattr(distillctl_crd.losses, name, lambda *a, name=name, function=function: (calls.append(name), function(*a))[1])
    scores(torch.randn(2, 3), torch.randn(40, 3), torch.randint(40, (2, negatives)))
    assert calls == [way]


@pytest.mark.parametrize("negatives", [2, 8])
def test_gradient(negatives: int) -> None:
    """Rows repeat, as they do when negatives are drawn with replacement; gradients that are not contiguous come in too."""
    v, bank = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(20, 4, dtype=torch.float64)
    rows = torch.tensor([[7, 7, 1, 0, 19, 7, 2, 2]] * 3)[:, :negatives]
    assert torch.autograd.gradcheck(lambda x: scores(x, bank, rows), v)
    assert torch.autograd.gradcheck(lambda x: scores(x, bank, rows).t().contiguous(), v)
    assert torch.autograd.gradcheck(lambda x: scores(x, bank, rows).sum(), v)


def test_single_precision_gradient_equals_that_of_the_obvious_way() -> None:
    v, bank, rows = torch.randn(4, 16, requires_grad=True), torch.randn(300, 16), torch.randint(300, (4, 200))
    weights = torch.randn(4, 200)
    (ours,) = torch.autograd.grad((scores(v, bank, rows) * weights).sum(), v)
    (obvious,) = torch.autograd.grad(((bank[rows] * v.unsqueeze(1)).sum(2) * weights).sum(), v)
    torch.testing.assert_close(ours, obvious, rtol=1e-5, atol=1e-4)


# -- the gradient as a GPU computes it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [scatter_and_multiply, gather_and_sum])
def test_the_ways_of_a_gpu_give_the_gradient_of_the_obvious_way(monkeypatch: pytest.MonkeyPatch, way: Callable[..., Tensor]) -> None:
    """Rows repeat within an anchor and between anchors; the weights come as a view that is not contiguous."""
    v, bank = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(9, 4, dtype=torch.float64)
    rows, weights = torch.randint(9, (3, 20)), torch.randn(20, 3, dtype=torch.float64).t()
    (obvious,) = torch.autograd.grad(((bank[rows] * v.unsqueeze(1)).sum(2) * weights).sum(), v)
    for values in (way(weights, bank, rows), sum_rows(weights, bank, rows)):
        torch.testing.assert_close(values, obvious, rtol=1e-13, atol=1e-13)
    monkeypatch.setattr(distillctl_crd.losses, "sum_rows", way)
    assert torch.autograd.gradcheck(lambda x: scores(x, bank, rows), v)


def test_portions_are_summed_in_order() -> None:
    """2²¹ floats are gathered at a time: here one anchor's rows."""
    weights, bank, rows = torch.randn(3, 10_000), torch.randn(50, 128), torch.randint(50, (3, 10_000))
    torch.testing.assert_close(gather_and_sum(weights, bank, rows), scatter_and_multiply(weights, bank, rows), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("negatives", "way"), [(5, "scatter_and_multiply"), (4, "gather_and_sum")])
def test_off_the_cpu_no_bag_is_summed_and_the_way_depends_on_the_size_of_the_bank(
    monkeypatch: pytest.MonkeyPatch, negatives: int, way: str
) -> None:
    monkeypatch.setattr(distillctl_crd.losses, way, lambda *arguments: arguments)
    weights, bank, rows = torch.empty(2, negatives), torch.empty(40, 3), torch.empty(2, negatives, dtype=torch.int64)
    there = tuple(value.to("meta") for value in (weights, bank, rows))
    assert all(a is b for a, b in zip(sum_rows(*there), there, strict=True))
