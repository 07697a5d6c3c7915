"""The formula of METHODS as plain loops in float64, and what must hold of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import kd_loss
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ofa.losses import cross_entropy, enhanced_target, ofa_loss
from distillctl_ofa.method import OFA
from distillctl_ofa.plugin import SPEC


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [p / sum(powers) for p in powers]


def by_loops(student: Tensor, teacher: Tensor, labels: Tensor, eps: float, variant: str = "code") -> float:
    total = 0.0
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        for c, (p_s, p_t) in enumerate(zip(softmax(z_s), softmax(z_t), strict=True)):
            m = 1.0 if c == y else 0.0
            amount = (p_t + m) ** eps - m
            if variant == "paper":
                amount = (1 + p_t) ** eps if c == y else p_t
            total -= amount * math.log(p_s)
    return total / len(student)


@pytest.fixture(params=[(5, 7), (1, 2), (4, 10)])
def data(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Tensor]:
    size, classes = request.param
    draw = torch.Generator().manual_seed(size)
    student, teacher = (3 * torch.randn(size, classes, dtype=torch.float64, generator=draw) for _ in range(2))
    return student, teacher, torch.randint(classes, (size,), generator=draw)


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("eps", [0.7, 1.0, 1.25, 1.5, 3.0])
def test_formula(data: tuple[Tensor, Tensor, Tensor], eps: float, variant: str) -> None:
    assert ofa_loss(*data, eps, variant).item() == pytest.approx(by_loops(*data, eps, variant), rel=1e-12)  # type: ignore[arg-type]


def test_value_by_hand() -> None:
    """p_t = (¾, ¼), p_s = (½, ½), y = 0, ε = 2: the amounts are 1.75² − 1 and ¼²."""
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    loss = ofa_loss(torch.zeros(1, 2, dtype=torch.float64), teacher, torch.tensor([0]), 2.0)
    assert loss.item() == pytest.approx((2.0625 + 0.0625) * math.log(2), rel=1e-12)


@pytest.mark.parametrize(("branch_weight", "logits_weight", "variant"), [(1.0, 1.0, "code"), (0.5, 3.0, "paper")])
def test_terms_are_the_formula_at_every_output(branch_weight: float, logits_weight: float, variant: str) -> None:
    setup = make_setup({"stage1": (3, 6, 6), "stage2": (4, 3, 3)}, {}, num_classes=5)
    torch.manual_seed(0)
    method = OFA(options_of(SPEC, eps=1.5, branch_weight=branch_weight, logits_weight=logits_weight, variant=variant), setup).double()
    draw = torch.Generator().manual_seed(1)
    student = {
        name: torch.randn(4, *shape, dtype=torch.float64, generator=draw) for name, shape in setup.student.shapes.items()
    }  # with the logits
    teacher = {"logits": torch.randn(4, 5, dtype=torch.float64, generator=draw)}
    batch = make_batch(setup, 4)
    seen: list[Tensor] = []
    for branch in method.branches:
        branch.register_forward_hook(lambda _module, _args, out: seen.append(out))

    terms = method(batch, student, teacher, make_progress())

    assert len(seen) == 2
    expected = sum(by_loops(logits, teacher["logits"], batch.labels, 1.5, variant) for logits in seen)
    assert list(terms) == ["branches", "logits"]
    assert terms["branches"].item() == pytest.approx(branch_weight * expected, rel=1e-12)
    own = by_loops(student["logits"], teacher["logits"], batch.labels, 1.5, variant)
    assert terms["logits"].item() == pytest.approx(logits_weight * own, rel=1e-12)


# -- invariants -------------------------------------------------------------------------------------------------------


def test_eps_one_is_the_cross_entropy_with_the_teacher(data: tuple[Tensor, Tensor, Tensor]) -> None:
    """KD at temperature 1, but for the teacher's entropy, which has no gradient; the labels play no part."""
    student, teacher, labels = data
    p = teacher.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(ofa_loss(student, teacher, labels, 1.0), kd_loss(student, teacher, 1.0, 1.0) + entropy)
    torch.testing.assert_close(ofa_loss(student, teacher, labels.flip(0) * 0, 1.0), ofa_loss(student, teacher, labels, 1.0))


def test_paper_with_eps_one_adds_the_label_loss(data: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = data
    expected = F.cross_entropy(student, labels) + ofa_loss(student, teacher, labels, 1.0)
    torch.testing.assert_close(ofa_loss(student, teacher, labels, 1.0, "paper"), expected)


@pytest.mark.parametrize("eps", [1.25, 1.5, 2.0])
def test_larger_eps_enhances_the_target_and_damps_the_others(data: tuple[Tensor, Tensor, Tensor], eps: float) -> None:
    _, teacher, labels = data
    p, amount = teacher.softmax(1), enhanced_target(teacher, labels, eps)
    target = F.one_hot(labels, teacher.shape[1]).bool()
    assert (amount[target] > p[target]).all()
    assert (amount[~target] < p[~target]).all()
    surest = enhanced_target(20.0 * F.one_hot(labels, teacher.shape[1]).double(), labels, eps)[target]
    torch.testing.assert_close(surest, torch.full_like(surest, 2**eps - 1))


def test_shift_of_all_logits_changes_nothing(data: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = data
    shift = torch.arange(len(student), dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(ofa_loss(student + shift, teacher - 2 * shift, labels, 1.5), ofa_loss(student, teacher, labels, 1.5))


def test_gradient_vanishes_where_the_student_has_the_enhanced_target(data: tuple[Tensor, Tensor, Tensor]) -> None:
    _, teacher, labels = data
    amount = enhanced_target(teacher, labels, 1.5)
    student = amount.log().requires_grad_()  # softmax divides by the sum
    cross_entropy(student, amount).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-14


@pytest.mark.parametrize("scale", [200.0, 1e4])
def test_sure_networks_stay_finite(scale: float) -> None:
    """A softmax followed by a logarithm is −∞ here."""
    labels = torch.tensor([0, 1, 2])
    student = torch.tensor([[0.0, scale, 0.0], [0.0, scale, 0.0], [-scale, 0.0, scale]], requires_grad=True)
    loss = ofa_loss(student, torch.tensor([[scale, 0.0, 0.0], [0.0, scale, 0.0], [scale, 0.0, -scale]]), labels, 1.5)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_small_probability_of_the_target_keeps_its_digits() -> None:
    """(1 + 1e-9)^1.5 − 1 is 0 if it is computed in float32 as it is written."""
    teacher = torch.tensor([[0.0, math.log(1e-9)]])
    assert enhanced_target(teacher, torch.tensor([1]), 1.5)[0, 1].item() == pytest.approx(1.5e-9, rel=1e-4)
