"""`ab` against its definition in plain Python loops, and what must hold of it."""

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ab.losses import ab_loss, boundary_loss
from distillctl_ab.method import AB
from distillctl_ab.plugin import SPEC


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(student, teacher, margin):
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        if s > -margin and t <= 0:
            total += (s + margin) ** 2
        if s <= margin and t > 0:
            total += (s - margin) ** 2
    return total / len(student)


@pytest.mark.parametrize("margin", [1.0, 0.3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (5, 4, 1, 3)])
def test_formula(shape, margin):
    student, teacher = draw(*shape, seed=1, scale=2.0), draw(*shape, seed=2)
    teacher[0, 0, 0, 0] = 0.0
    value = boundary_loss(student, teacher, margin)
    assert value.shape == ()
    assert value.item() == pytest.approx(by_loops(student, teacher, margin), rel=1e-12)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_and_the_fixed_factor(stages):
    shapes = [(3, 2, 4, 4), (3, 4, 2, 2), (3, 6, 1, 1)][:stages]
    students, teachers = ([draw(*shape, seed=seed + i) for i, shape in enumerate(shapes)] for seed in (0, 10))
    expected = sum(2.0 ** (i - stages + 1) * by_loops(s, t, 1.0) for i, (s, t) in enumerate(zip(students, teachers, strict=True)))
    assert ab_loss(students, teachers, 1.0).item() == pytest.approx(3 / 1000 * expected, rel=1e-12)


def test_hand_value():
    """m = 1. Active: 0.5 costs ¼, −1 costs 4, 2 nothing. Not active: 0 costs 1, −3 nothing, −0.5 ¼; t = 0 counts as not active."""
    student = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0, -0.5]).reshape(1, 1, 2, 3).double()
    teacher = torch.tensor([0.1, 5.0, 2.0, -4.0, -0.1, 0.0]).reshape(1, 1, 2, 3).double()
    assert boundary_loss(student, teacher, 1.0).item() == pytest.approx(0.25 + 4 + 0 + 1 + 0 + 0.25, rel=1e-12)


def test_zero_beyond_the_margin_on_the_teachers_side():
    """s ≥ m wherever t > 0, and s ≤ −m wherever t ≤ 0: no value and no gradient. A hair less, and there is some."""
    teacher = draw(2, 3, 4, 4)
    teacher[0, 0, 0, 0] = 0.0
    side = torch.where(teacher > 0, 1.0, -1.0).double()
    for student in (side, side * (1 + draw(2, 3, 4, 4, seed=1).abs())):
        student = student.clone().requires_grad_()
        loss = boundary_loss(student, teacher, 1.0)
        loss.backward()
        assert loss == 0
        assert (student.grad == 0).all()
    assert boundary_loss(side * 0.99, teacher, 1.0) > 0


def test_only_the_sign_of_the_teacher_matters():
    student, teacher = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1)
    value = boundary_loss(student, teacher, 1.0)
    for scale in (1e-6, 0.5, 3.0, 1e6):
        assert torch.equal(boundary_loss(student, teacher * scale, 1.0), value)
    assert torch.equal(boundary_loss(student, teacher.sign(), 1.0), value)
    assert not torch.equal(boundary_loss(student, -teacher, 1.0), value)


def test_huge_features_stay_finite():
    student, teacher = (1e4 * draw(2, 512, 28, 28, seed=seed).float() for seed in (0, 1))
    student.requires_grad_()
    loss = ab_loss([student], [teacher], 1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert loss.item() == pytest.approx(ab_loss([student.detach().double()], [teacher.double()], 1.0).item(), rel=1e-5)


STUDENT = {"stage1:pre": (3, 4, 4), "stage2:pre": (5, 2, 2)}
TEACHER = {"stage1:pre": (3, 4, 4), "stage2:pre": (4, 2, 2)}


@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_method_is_the_formula(margin):
    """Stage 1 has equal shapes and no connector; stage 2 has a 1×1 convolution and batch normalisation, without a ReLU."""
    torch.manual_seed(0)
    setup = make_setup(STUDENT, TEACHER)
    method = AB(options_of(SPEC, margin=margin), setup).double()
    student = {name: draw(3, *shape, seed=i) for i, (name, shape) in enumerate(STUDENT.items())}
    teacher = {name: draw(3, *shape, seed=5 + i) for i, (name, shape) in enumerate(TEACHER.items())}
    conv, _ = method.connectors[1]
    mapped = torch.einsum("bchw,dc->bdhw", student["stage2:pre"], conv.weight[:, :, 0, 0])
    mapped = mapped - mapped.mean((0, 2, 3), keepdim=True)
    mapped = mapped / (mapped.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    assert (mapped < 0).any()
    expected = by_loops(student["stage1:pre"], teacher["stage1:pre"], margin) / 2 + by_loops(mapped, teacher["stage2:pre"], margin)

    value = method.forward_phase("init", make_batch(setup, 3), student, teacher, make_progress())

    assert value.item() == pytest.approx(3 / 1000 * expected, rel=1e-10)


def test_term_has_no_gradient_for_logits():
    """What the classifier computes is not asked; in the phase it rests."""
    setup = make_setup(STUDENT, TEACHER)
    method = AB(options_of(SPEC), setup)
    student = {name: draw(3, *shape).float().requires_grad_() for name, shape in (*STUDENT.items(), ("logits", (10,)))}
    teacher = {name: draw(3, *shape, seed=1).float() for name, shape in TEACHER.items()}
    method.terms(make_batch(setup, 3), student, teacher, make_progress(), phase="init")[""].backward()
    assert student["logits"].grad is None
    assert all(student[name].grad.abs().sum() > 0 for name in STUDENT)
