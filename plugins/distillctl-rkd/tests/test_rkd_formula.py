"""`rkd` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_rkd.losses import angle_cosines, angle_loss, distance_loss, relative_distances
from distillctl_rkd.method import RKD
from distillctl_rkd.plugin import SPEC


def draw(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers(value):
    return [x for part in value for x in numbers(part)] if isinstance(value, list) else [value]


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def distances_by_loops(features, squared, eps):
    flat = [numbers(sample) for sample in features.tolist()]
    table = [[0.0] * len(flat) for _ in flat]
    for i, a in enumerate(flat):
        for j, b in enumerate(flat):
            if i != j:
                square = max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), eps)
                table[i][j] = square if squared else math.sqrt(square)
    positive = [d for row in table for d in row if d > 0]
    mean = sum(positive) / len(positive)
    return [[d / mean for d in row] for row in table]


def distance_by_loops(student, teacher, squared=False, eps=1e-12):
    ours, theirs = (distances_by_loops(side, squared, eps) for side in (student, teacher))
    size = len(ours)
    return sum(huber(ours[i][j] - theirs[i][j]) for i in range(size) for j in range(size)) / size**2


def direction(a, b):
    difference = [x - y for x, y in zip(a, b, strict=True)]
    length = max(math.hypot(*difference), 1e-12)
    return [x / length for x in difference]


def angle_by_loops(student, teacher):
    total = 0.0
    size = len(student)
    sides = [[numbers(sample) for sample in side.tolist()] for side in (student, teacher)]
    for i in range(size):
        for j in range(size):
            for k in range(size):
                ours, theirs = (sum(x * y for x, y in zip(direction(s[i], s[j]), direction(s[i], s[k]), strict=True)) for s in sides)
                total += huber(ours - theirs)
    return total / size**3


SHAPES = [((5, 3), (5, 7)), ((2, 6), (2, 3)), ((6, 2, 3, 1), (6, 9))]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("student", "teacher"), SHAPES)
def test_distance_formula(student, teacher, squared):
    student, teacher = draw(*student, seed=0) * 3, draw(*teacher, seed=1)
    loss = distance_loss(student, teacher, squared=squared)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(distance_by_loops(student, teacher, squared), rel=1e-12)


@pytest.mark.parametrize("chunk", [0, 1, 4, 100])
@pytest.mark.parametrize(("student", "teacher"), SHAPES)
def test_angle_formula(student, teacher, chunk):
    student, teacher = draw(*student, seed=0) * 3, draw(*teacher, seed=1)
    loss = angle_loss(student, teacher, chunk=chunk)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(angle_by_loops(student, teacher), rel=1e-12)


def test_relative_distances_of_a_right_triangle():
    """Sides 3, 4 and 5 of mean 4."""
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(relative_distances(points), expected / 4)
    torch.testing.assert_close(relative_distances(points, squared=True), expected.square() / (50 / 3))


def test_cosines_of_a_right_triangle():
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    cosines = angle_cosines(points, points)
    assert cosines[0, 1, 2].item() == pytest.approx(0.0, abs=1e-12)
    assert cosines[1, 0, 2].item() == pytest.approx(0.6)
    assert cosines[2, 0, 1].item() == pytest.approx(0.8)
    assert cosines[1, 2, 2].item() == pytest.approx(1.0)
    assert (cosines[torch.arange(3), torch.arange(3)] == 0).all()  # a sample with itself


def test_large_errors_count_linearly():
    """With one sample far away, relative distances differ by more than 1, the corner of SmoothL1."""
    student, teacher = draw(9, 2, seed=0), draw(9, 2, seed=1)
    student[0] += 100
    assert (relative_distances(student) - relative_distances(teacher)).abs().max() > 1
    assert distance_loss(student, teacher).item() == pytest.approx(distance_by_loops(student, teacher), rel=1e-12)


def test_terms_have_their_factors():
    setup = make_setup({"pooled": (3,)}, {"pooled": (5,)})
    student, teacher = {"pooled": draw(4, 3, seed=0)}, {"pooled": draw(4, 5, seed=1)}
    method = RKD(options_of(SPEC, squared=True), setup)
    terms = method.terms(make_batch(setup, 4), student, teacher, make_progress())
    assert set(terms) == {"distance", "angle"}
    assert terms["distance"].item() == pytest.approx(25 * distance_by_loops(student["pooled"], teacher["pooled"], squared=True), rel=1e-12)
    assert terms["angle"].item() == pytest.approx(50 * angle_by_loops(student["pooled"], teacher["pooled"]), rel=1e-12)


# -- invariants -------------------------------------------------------------------------------------------------------


def test_rotation_shift_and_scale_do_not_matter():
    student, teacher = draw(6, 5, seed=0), draw(6, 8, seed=1)
    rotation, _ = torch.linalg.qr(draw(5, 5, seed=2))
    for part in (distance_loss, angle_loss):
        expected = part(student, teacher)
        for other in (student @ rotation, student + draw(5, seed=3), student * 7, student * -1, 0.01 * student @ rotation + 3):
            torch.testing.assert_close(part(other, teacher), expected, rtol=1e-8, atol=0)
        torch.testing.assert_close(part(student, teacher * 50 - 2), expected, rtol=1e-8, atol=0)


def test_scale_of_a_single_sample_does_matter():
    student, teacher = draw(6, 5, seed=0), draw(6, 8, seed=1)
    before = [part(student, teacher) for part in (distance_loss, angle_loss)]
    student[2] *= 3
    after = [part(student, teacher) for part in (distance_loss, angle_loss)]
    assert all(not torch.isclose(a, b, rtol=1e-3) for a, b in zip(after, before, strict=True))


def test_diagonal_is_zero_and_the_mean_of_the_others_is_1():
    for squared in (False, True):
        d = relative_distances(draw(6, 5, seed=0), squared)
        assert (d.diagonal() == 0).all()
        assert (d[~torch.eye(6, dtype=torch.bool)].mean() - 1).abs() < 1e-12


@pytest.mark.parametrize("part", [distance_loss, angle_loss])
def test_zero_value_and_gradient_at_equality(part):
    teacher = draw(6, 5, seed=0)
    student = teacher.clone().requires_grad_()
    loss = part(student, teacher)
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("part", [distance_loss, angle_loss])
def test_gradient_is_that_of_finite_differences(part):
    """In particular the one through the student's mean distance."""
    student, teacher = draw(4, 3, seed=0).requires_grad_(), draw(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda features: part(features, teacher), (student,))


@pytest.mark.parametrize("chunk", [1, 2, 4, 9])
def test_chunks_give_the_same_gradient(chunk):
    student, teacher = draw(7, 3, seed=0).requires_grad_(), draw(7, 5, seed=1)
    (expected,) = torch.autograd.grad(angle_loss(student, teacher), student)
    (gradient,) = torch.autograd.grad(angle_loss(student, teacher, chunk=chunk), student)
    torch.testing.assert_close(gradient, expected)


def test_chunks_keep_less_for_the_backward_pass():
    def kept(chunk):
        total = 0

        def pack(value):
            nonlocal total
            total += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            angle_loss(draw(12, 5, seed=0).requires_grad_(), draw(12, 5, seed=1), chunk=chunk)
        return total

    assert kept(2) < kept(0) / 5
