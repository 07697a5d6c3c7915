"""`cc` against its definition in plain Python loops, and what must hold of it."""

import math
from itertools import pairwise

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_cc.losses import kernel_loss, kernel_matrix, neighbour_loss
from distillctl_cc.method import CC
from distillctl_cc.plugin import SPEC


def draw(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers(value):
    return [x for part in value for x in numbers(part)] if isinstance(value, list) else [value]


def embed(linear, features):
    weights, bias = linear.weight.tolist(), linear.bias.tolist()
    return [
        [sum(w * x for w, x in zip(row, numbers(sample), strict=True)) + b for row, b in zip(weights, bias, strict=True)]
        for sample in features.tolist()
    ]


def neighbours_by_loops(ours, theirs):
    deltas = [[abs(s - t) for s, t in zip(a, b, strict=True)] for a, b in zip(ours, theirs, strict=True)]
    products = [sum(x * y for x, y in zip(a, b, strict=True)) for a, b in pairwise(deltas)]
    return sum(products) / len(products)


def kernel_by_loops(rows, gamma, order):
    unit = [[x / math.hypot(*row) for x in row] for row in rows]
    result = []
    for a in unit:
        inner = [sum(x * y for x, y in zip(a, b, strict=True)) for b in unit]
        result.append([math.exp(-2 * gamma) * sum((2 * gamma * g) ** p / math.factorial(p) for p in range(order + 1)) for g in inner])
    return result


def kernels_by_loops(ours, theirs, gamma, order, squared):
    k_s, k_t = kernel_by_loops(ours, gamma, order), kernel_by_loops(theirs, gamma, order)
    total = sum((a - b) ** 2 for row_s, row_t in zip(k_s, k_t, strict=True) for a, b in zip(row_s, row_t, strict=True))
    return (total if squared else math.sqrt(total)) / len(ours) ** 2


def evaluate(student, teacher, **options):
    setup = make_setup({"pooled": tuple(student.shape[1:])}, {"pooled": tuple(teacher.shape[1:])})
    torch.manual_seed(0)
    method = CC(options_of(SPEC, **options), setup).double()
    batch = make_batch(setup, len(student))
    (loss,) = method.terms(batch, {"pooled": student}, {"pooled": teacher}, make_progress()).values()
    return method, loss.item()


@pytest.mark.parametrize(("student", "teacher"), [((5, 3), (5, 7)), ((2, 6), (2, 3)), ((4, 2, 3, 1), (4, 9))])
def test_formula_of_neighbours(student, teacher):
    student, teacher = draw(*student, seed=0), draw(*teacher, seed=1)
    method, loss = evaluate(student, teacher, feat_dim=6)
    expected = neighbours_by_loops(embed(method.embed_student, student), embed(method.embed_teacher, teacher))
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (1.5, 1), (0.1, 5)])
def test_formula_of_the_kernel(gamma, order, squared):
    student, teacher = draw(5, 3, 2, seed=0), draw(5, 7, seed=1)
    method, loss = evaluate(student, teacher, variant="kernel", gamma=gamma, order=order, squared=squared)
    assert not list(method.parameters())
    assert loss == pytest.approx(kernels_by_loops(student.flatten(1).tolist(), teacher.tolist(), gamma, order, squared), rel=1e-9)


# -- neighbours -------------------------------------------------------------------------------------------------------


def test_hand_computed_neighbours():
    """δ = (1, 2), (3, 0), (1, 5): products 3 + 0 and 3 + 0."""
    student, teacher = torch.tensor([[1.0, -2.0], [0.0, 4.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, -3.0]])
    assert neighbour_loss(student, teacher) == 3.0


def test_order_of_the_batch_matters():
    student, teacher = draw(5, 3, seed=0), draw(5, 3, seed=1)
    order = torch.tensor([2, 0, 4, 1, 3])
    assert not torch.isclose(neighbour_loss(student[order], teacher[order]), neighbour_loss(student, teacher), rtol=1e-3)
    # Backwards, the neighbours are the same.
    torch.testing.assert_close(neighbour_loss(student.flip(0), teacher.flip(0)), neighbour_loss(student, teacher))


def test_zero_just_where_one_of_two_neighbours_agrees():
    teacher = draw(5, 3, seed=0)
    student = teacher.clone()
    student[1] += 1
    student[3] -= 2
    assert neighbour_loss(student, teacher) == 0
    student[2] += 1
    assert neighbour_loss(student, teacher) > 0


def test_both_embeddings_of_neighbours_are_trained_and_the_teachers_feature_is_not():
    student, teacher = draw(4, 3, seed=0).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    setup = make_setup({"pooled": (3,)}, {"pooled": (5,)})
    for variant, trained in (("repdistiller", 4), ("kernel", 0)):
        method = CC(options_of(SPEC, variant=variant), setup).double()
        (loss,) = method.terms(make_batch(setup, 4), {"pooled": student}, {"pooled": teacher}, make_progress()).values()
        loss.backward()
        assert [p.grad.abs().sum() > 0 for p in method.parameters()] == [True] * trained
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None


# -- kernel -----------------------------------------------------------------------------------------------------------


def test_many_powers_give_the_gaussian():
    x = draw(6, 5, seed=0)
    unit = x / x.norm(dim=1, keepdim=True)
    gaussian = (-0.7 * torch.cdist(unit, unit).square()).exp()
    torch.testing.assert_close(kernel_matrix(x, 0.7, 20), gaussian, rtol=1e-10, atol=0)
    assert not torch.allclose(kernel_matrix(x, 0.7, 2), gaussian, rtol=1e-3)


def test_hand_computed_kernel():
    """Embeddings at a right angle: exp(−0.8) · (1 + 0.8 + 0.32) on the diagonal, exp(−0.8) elsewhere."""
    k = kernel_matrix(torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(k, math.exp(-0.8) * torch.tensor([[2.12, 1.0], [1.0, 2.12]], dtype=torch.float64))


def test_kernel_follows_the_order_and_ignores_scale_and_rotation():
    x, order = draw(6, 5, seed=0), torch.tensor([3, 0, 5, 1, 2, 4])
    k = kernel_matrix(x)
    torch.testing.assert_close(kernel_matrix(x[order]), k[order][:, order])
    rotation, _ = torch.linalg.qr(draw(5, 5, seed=1))
    scales = torch.logspace(-3, 4, 6, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(kernel_matrix((x @ rotation) * scales), k)


def test_kernel_is_zero_at_equality():
    teacher = draw(6, 5, seed=0)
    student = teacher.clone().requires_grad_()
    loss = kernel_loss(student, teacher * 3)
    loss.backward()
    assert loss < 1e-28
    assert student.grad.abs().max() < 1e-15
