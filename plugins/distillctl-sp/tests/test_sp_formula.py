"""`sp` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_sp.losses import similarities, sp_loss
from distillctl_sp.method import SP
from distillctl_sp.plugin import SPEC


def draw(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers(value):
    return [x for part in value for x in numbers(part)] if isinstance(value, list) else [value]


def rows_by_loops(features, row_norm):
    flat = [numbers(sample) for sample in features.tolist()]
    result = []
    for a in flat:
        row = [sum(x * y for x, y in zip(a, b, strict=True)) for b in flat]
        length = math.sqrt(sum(g * g for g in row)) if row_norm == "l2" else sum(abs(g) for g in row)
        result.append([g / length for g in row])
    return result


def by_loops(student, teacher, row_norm):
    ours, theirs = rows_by_loops(student, row_norm), rows_by_loops(teacher, row_norm)
    total = 0.0
    for row_s, row_t in zip(ours, theirs, strict=True):
        for s, t in zip(row_s, row_t, strict=True):
            total += (t - s) ** 2
    return total / len(ours) ** 2


@pytest.mark.parametrize("row_norm", ["l2", "l1"])
@pytest.mark.parametrize(("student", "teacher"), [((5, 3, 2, 2), (5, 4, 3, 1)), ((2, 6), (2, 3)), ((7, 2, 3), (7, 9, 1, 1))])
def test_formula(student, teacher, row_norm):
    student, teacher = draw(*student, seed=0), draw(*teacher, seed=1)
    loss = sp_loss(student, teacher, row_norm)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_loops(student, teacher, row_norm), rel=1e-12)


def test_stages_are_added_up():
    shapes = {"stage1": (3, 4, 4), "stage2": (4, 2, 2)}, {"stage1": (5, 4, 4), "stage2": (6, 2, 2)}
    setup = make_setup(*shapes)
    method = SP(options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"]), setup)
    student, teacher = ({name: draw(4, *shape, seed=i) for i, (name, shape) in enumerate(side.items())} for side in shapes)
    (loss,) = method.terms(make_batch(setup, 4), student, teacher, make_progress()).values()
    expected = sum(by_loops(student[name], teacher[name], "l2") for name in ("stage1", "stage2"))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


# -- bugs of other implementations ------------------------------------------------------------------------------------


def test_d08_rows_are_l2_normalised():
    """Two peers hand the dimension to `normalize` where it expects the order of the norm: [3, 4] becomes [3/7, 4/7]."""
    features = torch.tensor([[3**0.5, 0.0], [4 / 3**0.5, 1.0]])
    torch.testing.assert_close(features @ features[0], torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(similarities(features)[0], torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(similarities(features, "l1")[0], torch.tensor([3 / 7, 4 / 7]))


def test_d08_hand_computed_batch_of_two():
    """The student's rows are both [1, 1]/√2, the teacher's [1, 0] and [0, 1]: two rows of (1 − 1/√2)² + ½, divided by 2²."""
    student, teacher = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert options_of(SPEC).row_norm == "l2"
    assert sp_loss(student, teacher).item() == pytest.approx(((1 - 0.5**0.5) ** 2 + 0.5) / 2, rel=1e-12)
    assert sp_loss(student, teacher, "l1").item() == pytest.approx(0.25, rel=1e-12)


# -- invariants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_norm", ["l2", "l1"])
def test_scale_of_a_side_and_rotation_of_its_features_do_not_matter(row_norm):
    student, teacher = draw(6, 5, seed=0), draw(6, 8, seed=1)
    expected = sp_loss(student, teacher, row_norm)
    rotation, _ = torch.linalg.qr(draw(5, 5, seed=2))
    for other in (student * 1e-3, student * 1e4, student * -1, student @ rotation):
        torch.testing.assert_close(sp_loss(other, teacher, row_norm), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(sp_loss(student, teacher * 50, row_norm), expected, rtol=1e-10, atol=0)


def test_scale_of_a_single_sample_does_matter():
    student, teacher = draw(6, 5, seed=0), draw(6, 8, seed=1)
    before = sp_loss(student, teacher)
    student[2] *= 3
    assert not torch.isclose(sp_loss(student, teacher), before, rtol=1e-3)


def test_rows_have_length_1():
    torch.testing.assert_close(similarities(draw(6, 3, 2, 2, seed=0)).norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(similarities(draw(6, 3, 2, 2, seed=0), "l1").abs().sum(1), torch.ones(6, dtype=torch.float64))


def test_zero_value_and_gradient_at_equality():
    teacher = draw(6, 3, 2, 2, seed=0)
    student = teacher.clone().requires_grad_()
    loss = sp_loss(student, teacher)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("size", [2, 3, 8])
def test_no_value_is_above_4_over_the_batch(size):
    """Rows of length 1 are at most 2 apart."""
    for seed in range(20):
        assert sp_loss(draw(size, 1, seed=seed), draw(size, 4, seed=seed + 100)) <= 4 / size


# -- special inputs ---------------------------------------------------------------------------------------------------


def test_batch_of_one_is_zero_with_a_graph():
    student = draw(1, 3, 2, 2, seed=0).requires_grad_()
    loss = sp_loss(student, draw(1, 8, seed=1))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("row_norm", ["l2", "l1"])
def test_sample_of_zeros_does_not_get_a_gradient_of_a_million_million(row_norm):
    """Dividing its row by a small constant would do that: the loss is finite, and so is the gradient, but no run survives it."""
    student = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    student[2] = 0
    student.requires_grad_()
    sp_loss(student, torch.rand(5, 6, generator=torch.Generator().manual_seed(1)), row_norm).backward()
    assert student.grad.abs().max() < 10
    assert (similarities(student, row_norm)[2] == 0).all()


def test_maps_whose_gram_matrix_overflows_float16():
    """The peers' loss is NaN here under autocast."""
    setup = make_setup({"last": (512, 7, 7)}, {"last": (512, 7, 7)})
    method = SP(options_of(SPEC), setup)
    student, teacher = ((3 * draw(2, 512, 7, 7, seed=seed)).relu().half() for seed in (0, 1))
    assert (student.flatten(1).double().square().sum(1) > 65_504).all()
    with torch.autocast("cpu", dtype=torch.float16):
        (loss,) = method.terms(make_batch(setup, 2), {"last": student}, {"last": teacher}, make_progress()).values()
    assert loss.item() == pytest.approx(by_loops(student.double(), teacher.double(), "l2"), rel=1e-3)
