from __future__ import annotations

import pytest
import torch

import distillctl_crd.losses
from distillctl_crd.losses import gather_rows, score_all, scores


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
