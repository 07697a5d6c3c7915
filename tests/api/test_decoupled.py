"""Logits taken apart into the target class and the others."""

import math

import pytest
import torch

from distillctl import is_target, kd_loss, other_divergence, others, split_target, target_divergence

B, C = 5, 7


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda: 3 * torch.randn(B, C, dtype=torch.float64, generator=generator)


LABELS = torch.tensor([0, 6, 3, 3, 1])


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def test_each_row_has_exactly_one_target():
    target = is_target(LABELS, C)
    assert (target.shape, target.dtype) == ((B, C), torch.bool)
    assert target.sum(1).tolist() == [1] * B
    assert target.int().argmax(1).tolist() == LABELS.tolist()


def test_split_by_loops(draw):
    u, target = draw(), is_target(LABELS, C)
    gaps, log_q = split_target(u, target)
    assert (gaps.shape, log_q.shape) == ((B,), (B, C))
    assert log_q.isfinite().all()
    q = others(log_q, target)
    for row, g, gap, logs, probabilities in zip(u.tolist(), LABELS.tolist(), gaps.tolist(), log_q.tolist(), q.tolist(), strict=True):
        hit = softmax(row)[g]
        assert gap == pytest.approx(math.log(hit) - math.log(1 - hit), rel=1e-9)
        wanted = softmax(row[:g] + row[g + 1 :])
        assert probabilities[:g] + probabilities[g + 1 :] == pytest.approx(wanted, rel=1e-12)
        assert logs[:g] + logs[g + 1 :] == pytest.approx([math.log(w) for w in wanted], rel=1e-12)
        assert probabilities[g] == 0


def test_divergences_by_loops(draw):
    student, teacher, target = draw(), draw(), is_target(LABELS, C)
    (gap_s, log_s), (gap_t, log_t) = split_target(student, target), split_target(teacher, target)
    first, second = [], []
    for u_s, u_t, g in zip(student.tolist(), teacher.tolist(), LABELS.tolist(), strict=True):
        p_s, p_t = softmax(u_s)[g], softmax(u_t)[g]
        first.append(divergence([p_t, 1 - p_t], [p_s, 1 - p_s]))
        second.append(divergence(softmax(u_t[:g] + u_t[g + 1 :]), softmax(u_s[:g] + u_s[g + 1 :])))
    assert target_divergence(gap_s, gap_t).tolist() == pytest.approx(first, rel=1e-12)
    assert other_divergence(log_s, log_t, target).tolist() == pytest.approx(second, rel=1e-12)


def test_parts_make_up_kd(draw):
    """KD = T² · mean_B (KL(b_t ‖ b_s) + (1 − p_t,g) · KL(q_t ‖ q_s))."""
    student, teacher, temperature = draw(), draw(), 4.0
    target = is_target(LABELS, C)
    gap_s, log_q_s = split_target(student / temperature, target)
    gap_t, log_q_t = split_target(teacher / temperature, target)
    p_t = (teacher / temperature).softmax(1)[target]
    rows = target_divergence(gap_s, gap_t) + (1 - p_t) * other_divergence(log_q_s, log_q_t, target)
    torch.testing.assert_close(temperature**2 * rows.mean(), kd_loss(student, teacher, temperature, temperature), rtol=1e-12, atol=0)


def test_zero_at_equality_up_to_a_shift(draw):
    teacher, target = draw(), is_target(LABELS, C)
    student = (teacher + torch.arange(B)[:, None]).requires_grad_()
    (gap_s, log_s), (gap_t, log_t) = split_target(student, target), split_target(teacher, target)
    rows = torch.stack([target_divergence(gap_s, gap_t), other_divergence(log_s, log_t, target)])
    rows.sum().backward()
    assert rows.abs().max() < 1e-12
    assert student.grad.abs().max() < 1e-12


def test_other_classes_do_not_see_the_target_logit(draw):
    student, teacher, target = draw().requires_grad_(), draw(), is_target(LABELS, C)
    other_divergence(split_target(student, target)[1], split_target(teacher, target)[1], target).sum().backward()
    assert (student.grad[target] == 0).all()
    assert (student.grad[~target] != 0).all()


@pytest.mark.parametrize("gap", [1e2, 1e4])
@pytest.mark.parametrize("wrong", [False, True])
def test_sure_networks_stay_finite(gap, wrong):
    labels = torch.tensor([0, 1])
    target, teacher = is_target(labels, C), gap * torch.eye(2, C)
    student = gap * torch.eye(C)[[2, 3]] if wrong else teacher.clone()
    student.requires_grad_()
    (gap_s, log_s), (gap_t, log_t) = split_target(student, target), split_target(teacher, target)
    rows = torch.stack([target_divergence(gap_s, gap_t), other_divergence(log_s, log_t, target)])
    rows.sum().backward()
    assert rows.isfinite().all()
    assert student.grad.isfinite().all()
    assert rows[0].tolist() == pytest.approx([gap if wrong else 0.0] * 2, rel=1e-4)


def test_two_classes_leave_one_other():
    target = is_target(torch.tensor([0, 1]), 2)
    gaps, log_q = split_target(torch.tensor([[2.0, 0.5], [1.0, 4.0]]), target)
    assert gaps.tolist() == [1.5, 3.0]
    assert others(log_q, target).tolist() == [[0.0, 1.0], [1.0, 0.0]]
