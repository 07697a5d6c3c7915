import pytest
import torch

from distillctl_example.losses import mimic_loss


def by_loops(student, teacher, centred):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        if centred:
            s = [value - sum(s) / len(s) for value in s]
            t = [value - sum(t) / len(t) for value in t]
        total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 2
    return total / len(student)


@pytest.mark.parametrize("centred", [False, True])
def test_formula(centred):
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    expected = torch.tensor(by_loops(student, teacher, centred), dtype=torch.float64)
    torch.testing.assert_close(mimic_loss(student, teacher, centred=centred), expected)


def test_centred_ignores_a_shift_of_all_logits():
    draw = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(5, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    shift = torch.tensor([[1.0], [-2.0], [30.0], [0.5], [4.0]], dtype=torch.float64)
    assert torch.allclose(mimic_loss(student + shift, teacher, centred=True), mimic_loss(student, teacher, centred=True))
    assert not torch.allclose(mimic_loss(student + shift, teacher, centred=False), mimic_loss(student, teacher, centred=False))
