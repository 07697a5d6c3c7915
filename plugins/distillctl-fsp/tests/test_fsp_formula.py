"""The formula of METHODS as plain loops in float64, and what must hold of it."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from distillctl_fsp.losses import flow, fsp_loss, fsp_matrix

EXACT = {"rtol": 1e-10, "atol": 1e-14}


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pooled_by_loops(plane, height, width, pool):
    """One plane (H, W) as nested lists; window i of n covers ⌊i·H/n⌋ … ⌈(i+1)·H/n⌉."""

    def window(index, parts, length):
        return range(index * length // parts, -(-(index + 1) * length // parts))

    out = []
    for i in range(height):
        row = []
        for j in range(width):
            values = [plane[y][x] for y in window(i, height, len(plane)) for x in window(j, width, len(plane[0]))]
            row.append(max(values) if pool == "max" else sum(values) / len(values))
        out.append(row)
    return out


def matrix_by_loops(bottom, top, pool):
    """One image: planes of the lower stage, planes of the upper stage → rows b, columns a."""
    height, width = min(len(bottom[0]), len(top[0])), min(len(bottom[0][0]), len(top[0][0]))
    bottom, top = ([pooled_by_loops(plane, height, width, pool) for plane in planes] for planes in (bottom, top))
    return [
        [sum(b[y][x] * a[y][x] for y in range(height) for x in range(width)) / (height * width) for a in bottom] for b in top
    ]  # fmt: skip


def loss_by_loops(student, teacher, pool):
    student, teacher = ([maps.tolist() for maps in side] for side in (student, teacher))
    total = 0.0
    for i in range(len(student) - 1):
        squares = []
        for image in range(len(student[i])):
            ours = matrix_by_loops(student[i][image], student[i + 1][image], pool)
            theirs = matrix_by_loops(teacher[i][image], teacher[i + 1][image], pool)
            squares += [(s - t) ** 2 for row_s, row_t in zip(ours, theirs, strict=True) for s, t in zip(row_s, row_t, strict=True)]
        total += sum(squares) / len(squares)
    return torch.tensor(total, dtype=torch.float64)


SHAPES = {
    "falling": ([(2, 6, 4), (3, 6, 4), (4, 3, 2)], [(2, 6, 4), (3, 6, 4), (4, 3, 2)]),
    "other sizes": ([(2, 5, 7), (3, 3, 2), (2, 1, 1)], [(2, 4, 4), (3, 4, 4), (2, 2, 2)]),
    "growing": ([(3, 2, 5), (2, 4, 3)], [(3, 3, 3), (2, 6, 6)]),
}


@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_loss_is_the_formula(shapes, pool):
    student, teacher = ([draw(3, *shape, seed=10 * side + k) for k, shape in enumerate(SHAPES[shapes][side])] for side in (0, 1))
    torch.testing.assert_close(fsp_loss(student, teacher, pool), loss_by_loops(student, teacher, pool), **EXACT)


def test_hand_computed_matrix():
    """G[b, a] = ½ · Σ over two positions."""
    bottom = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    top = torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]], [[-1.0, 1.0]]]])
    expected = torch.tensor([[[1.5, 3.5], [2.0, 4.0], [0.5, 0.5]]])
    assert torch.equal(fsp_matrix(bottom, top, "average"), expected)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_d21_one_matrix_product_equals_the_tensor_of_all_products(pool):
    """The peers multiply (B, 1, C, H·W) by (B, D, 1, H·W) and average: B·C·D·H·W numbers. Here the largest tensor is a map or G."""
    bottom, top = draw(2, 5, 8, 8, seed=1), draw(2, 7, 4, 4, seed=2)
    small = F.adaptive_avg_pool2d(bottom, 4) if pool == "average" else F.adaptive_max_pool2d(bottom, 4)
    naive = (small.flatten(2).unsqueeze(1) * top.flatten(2).unsqueeze(2)).mean(3)
    torch.testing.assert_close(fsp_matrix(bottom, top, pool), naive, **EXACT)

    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(value.numel() for value in (out if isinstance(out, tuple) else (out,)) if isinstance(value, torch.Tensor))
            return out

    with Sizes():
        fsp_matrix(bottom, top, pool)
    assert max(sizes) <= bottom.numel()


def test_matrix_is_bilinear():
    bottom, top, other = draw(2, 3, 4, 4, seed=1), draw(2, 5, 4, 4, seed=2), draw(2, 5, 4, 4, seed=3)
    torch.testing.assert_close(fsp_matrix(3 * bottom, 2 * top, "average"), 6 * fsp_matrix(bottom, top, "average"), **EXACT)
    parts = [fsp_matrix(bottom, one, "average") for one in (top, other)]
    torch.testing.assert_close(fsp_matrix(bottom, top + other, "average"), parts[0] + parts[1], **EXACT)


def test_common_permutation_of_the_positions_leaves_the_matrix():
    bottom, top = draw(2, 3, 4, 4, seed=1), draw(2, 5, 4, 4, seed=2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = [maps.flatten(2)[:, :, order].unflatten(2, (4, 4)) for maps in (bottom, top)]
    before = fsp_matrix(bottom, top, "average")
    torch.testing.assert_close(fsp_matrix(*moved, "average"), before, **EXACT)
    assert not torch.allclose(fsp_matrix(moved[0], top, "average"), before)


def test_zero_value_and_gradient_at_equality():
    maps = [draw(2, 3, 4, 4, seed=1).requires_grad_(), draw(2, 5, 2, 2, seed=2).requires_grad_(), draw(2, 4, 2, 2, seed=3).requires_grad_()]
    loss = fsp_loss(maps, [value.detach().clone() for value in maps])
    loss.backward()
    assert loss == 0
    assert all((value.grad == 0).all() for value in maps)


def test_one_matrix_less_than_maps():
    maps = [draw(2, channels, 4, 4) for channels in (2, 3, 5, 4)]
    assert [tuple(matrix.shape) for matrix in flow(maps, "average")] == [(2, 3, 2), (2, 5, 3), (2, 4, 5)]


def test_pooling_kinds_differ():
    student, teacher = ([draw(2, 2, 4, 4, seed=k), draw(2, 3, 2, 2, seed=k + 1)] for k in (0, 5))
    assert not torch.isclose(fsp_loss(student, teacher, "average"), fsp_loss(student, teacher, "max"))
