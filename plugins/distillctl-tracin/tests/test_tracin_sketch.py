"""Random projections: right on average, the same for a seed, and never a matrix."""

import torch

from distillctl_tracin.sketch import Sketch


def parts(seed):
    draw = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 40, generator=draw), "b": torch.randn(3, 25, generator=draw)}


def whole(value):
    return torch.cat([part.double() for part in value.values()], 1)


def test_dot_products_are_right_on_average():
    one, other = parts(0), parts(1)
    exact = whole(one) @ whole(other).T
    seeds, width = 1000, 32
    found = torch.stack([Sketch(width, seed)(one) @ Sketch(width, seed)(other).T for seed in range(seeds)])
    bound = (((whole(one) ** 2).sum(1)[:, None] * (whole(other) ** 2).sum(1) + exact**2) / width).sqrt()
    assert ((found.mean(0) - exact).abs() < 4 * bound / seeds**0.5).all()
    assert (found.std(0) < 1.15 * bound).all()
    assert (found.std(0) > 0.5 * bound).all()  # it is a projection


def test_a_seed_gives_one_projection_and_parts_have_their_own():
    one = parts(0)
    first = Sketch(16, 5)
    assert torch.equal(first(one), Sketch(16, 5)(one))
    assert torch.equal(first(one), first(one))
    assert not torch.equal(first(one), Sketch(16, 6)(one))
    same = {"a": one["a"], "b": one["a"]}
    assert not torch.equal(first({"a": same["a"]}), Sketch(16, 5)({"b": same["b"]}))


def test_rows_do_not_depend_on_each_other():
    one = parts(0)
    torch.testing.assert_close(Sketch(16, 5)(one)[1:2], Sketch(16, 5)({name: part[1:2] for name, part in one.items()}))


def test_no_matrix_is_made():
    """It would have 2·10¹¹ numbers."""
    part = torch.ones(1, 2_000_000)
    found = Sketch(100_000, 0)({"a": part})
    assert found.shape == (1, 100_000)
    assert abs(float((found**2).sum()) / 2e6 - 1) < 0.1
