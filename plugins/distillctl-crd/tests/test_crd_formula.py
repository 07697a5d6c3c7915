"""The formula of METHODS as plain loops in float64, with negatives that are given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from distillctl import Batch, Setup
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_crd.losses import log_normaliser, nce
from distillctl_crd.method import CRD
from distillctl_crd.plugin import register_method

K, TAU = 6, 0.07


class Given(nn.Module):
    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, batch: Batch, count: int) -> Tensor:
        assert self.rows.shape == (len(batch.index), count)
        return self.rows


def embed(linear: nn.Linear, features: Tensor) -> list[list[float]]:
    result = []
    for row in features.tolist():
        out = [
            sum(w * x for w, x in zip(weights, row, strict=True)) + b
            for weights, b in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(x * x for x in out))
        result.append([x / length for x in out])
    return result


def side_by_loops(v: list[list[float]], bank: Tensor, rows: Sequence[Sequence[int]], z: float | None = None) -> tuple[float, float]:
    """The loss of one side and its Z; `rows` has the positive first."""
    memory, count = bank.tolist(), len(bank)
    o = [[math.exp(sum(m * x for m, x in zip(memory[i], a, strict=True)) / TAU) for i in r] for a, r in zip(v, rows, strict=True)]
    if z is None:
        z = sum(map(sum, o)) / (len(o) * len(o[0])) * count
    noise = K / count
    total = 0.0
    for scores in o:
        for k, score in enumerate(scores):
            p = score / z
            total -= math.log(p / (p + noise + 1e-7)) if k == 0 else math.log(noise / (p + noise + 1e-7))
    return total / len(o), z


def build() -> tuple[CRD, Setup]:
    setup = make_setup({"pooled": (5,)}, {"pooled": (7,)}, num_classes=4, num_data=20)
    torch.manual_seed(0)
    return CRD(options_of(register_method(), negatives=K, feat_dim=8), setup).double(), setup


def test_loss_is_the_formula_in_the_first_and_in_later_steps() -> None:
    method, setup = build()
    z_s = z_t = None
    for seed in range(3):
        batch = make_batch(setup, 3, seed)
        rows = torch.randint(20, (3, K), generator=torch.Generator().manual_seed(seed))
        method.negatives = Given(rows)
        student, teacher = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
        all_rows = [[y, *r] for y, r in zip(batch.index.tolist(), rows.tolist(), strict=True)]
        loss_s, z_s = side_by_loops(embed(method.embed_student, student), method.teacher_bank, all_rows, z_s)
        loss_t, z_t = side_by_loops(embed(method.embed_teacher, teacher), method.student_bank, all_rows, z_t)

        value = method(batch, {"pooled": student}, {"pooled": teacher}, make_progress())
        value.backward()
        method.after_step()

        assert value.item() == pytest.approx(loss_s + loss_t, rel=1e-12)
        assert method.log_z.exp().tolist() == pytest.approx([z_s, z_t], rel=1e-12)


def test_sides_are_symmetric() -> None:
    """Exchanging the roles of student and teacher leaves the loss as it is."""
    setup = make_setup({"pooled": (5,)}, {"pooled": (5,)}, num_classes=4, num_data=20)
    method = CRD(options_of(register_method(), negatives=K, feat_dim=8), setup).double()
    batch, p, q = make_batch(setup, 3), torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    torch.manual_seed(1)
    one = method(batch, {"pooled": p}, {"pooled": q}, make_progress())
    method.embed_student, method.embed_teacher = method.embed_teacher, method.embed_student
    method.student_bank, method.teacher_bank = method.teacher_bank, method.student_bank
    torch.manual_seed(1)
    other = method(batch, {"pooled": q}, {"pooled": p}, make_progress())
    torch.testing.assert_close(one, other)


# -- the parts of the loss --------------------------------------------------------------------------------------------


def test_nce_is_a_mean_over_the_batch_and_positive() -> None:
    positive, negatives, log_z = torch.randn(4), torch.randn(4, 9), torch.tensor(1.5)
    once = nce(positive, negatives, log_z, 50)
    assert once > 0
    assert once.shape == ()
    torch.testing.assert_close(nce(positive.repeat(2), negatives.repeat(2, 1), log_z, 50), once)


def test_normaliser_is_the_mean_times_the_number_of_images() -> None:
    positive, negatives = torch.randn(4, requires_grad=True), torch.randn(4, 9)
    log_z = log_normaliser(positive, negatives, 50)
    assert not log_z.requires_grad
    torch.testing.assert_close(log_z.exp(), torch.cat([positive.unsqueeze(1), negatives], 1).exp().mean() * 50)


def test_scores_far_beyond_what_exp_can_take_stay_finite() -> None:
    positive, negatives = torch.tensor([900.0, -900.0], requires_grad=True), torch.tensor([[850.0, -850.0]] * 2, requires_grad=True)
    loss = nce(positive, negatives, log_normaliser(positive, negatives, 50), 50)
    loss.backward()
    assert loss.isfinite()
    assert positive.grad.isfinite().all()
    assert negatives.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_terms_of_every_size_keep_their_digits(dtype: torch.dtype, tolerance: float) -> None:
    """The negatives' terms are near 10⁻⁵, where log(1 + u) in float32 has lost three digits."""
    shift = math.log(1 / 50 + 1e-7)
    for a in (-40.0, -17.0, -9.7, -3.0, 0.0, 2.0, 25.0, 100.0):
        x = torch.tensor(a + shift, dtype=dtype)
        exact = x.item() - shift
        term = max(exact, 0.0) + math.log1p(math.exp(-abs(exact)))
        loss = nce(torch.tensor([1e4], dtype=dtype), x.view(1, 1), torch.zeros((), dtype=dtype), 50) - math.log1p(5e-6)
        # Positive: exp(1e4) is certain and adds nothing. The constant of the formula limits what is left of the smallest terms.
        assert loss.item() == pytest.approx(term, rel=tolerance, abs=1e-12 if dtype == torch.float32 else 1e-20)
