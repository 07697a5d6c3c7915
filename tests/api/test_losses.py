"""What several methods share."""

import pytest
import torch
import torch.nn.functional as F

from distillctl import kd_loss, kl_divergence, match_size, unit_rows, widen


def test_kl_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    expected = 0.5 * torch.log(torch.tensor(2.0)) + 0.25 * torch.log(torch.tensor(0.5))
    torch.testing.assert_close(kl_divergence(p.log(), q.log()), expected[None])


def test_kl_divergence_with_classes_of_no_mass():
    log_p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    z = torch.tensor([[0.3, -0.2, 5.0]], requires_grad=True)
    value = kl_divergence(log_p, F.log_softmax(z, 1))
    value.sum().backward()
    expected = sum(0.5 * (torch.log(torch.tensor(0.5)) - F.log_softmax(z.detach(), 1)[0, i]) for i in (0, 1))
    torch.testing.assert_close(value.detach()[0], expected)
    torch.testing.assert_close(z.grad, F.softmax(z.detach(), 1) - log_p.exp())  # the known gradient of a cross entropy


def test_kl_divergence_where_both_have_no_mass():
    log_p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    z = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    value = kl_divergence(log_p, F.log_softmax(z, 1))
    value.sum().backward()
    assert value.isfinite().all()
    assert z.grad.isfinite().all()
    assert value.item() == pytest.approx(0.1201145, abs=1e-6)  # −ln 2 + ½·(2·ln(e + e²) − 3)


def test_kd_loss_takes_temperatures_of_every_form():
    z_s, z_t = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = kd_loss(z_s, z_t, 3.0, 3.0)
    assert value.shape == ()
    torch.testing.assert_close(value, 9 * F.kl_div(F.log_softmax(z_s / 3, 1), F.softmax(z_t / 3, 1), reduction="batchmean"))
    scalar, column = torch.tensor(3.0, dtype=torch.float64), torch.full((4, 1), 3.0, dtype=torch.float64)
    torch.testing.assert_close(kd_loss(z_s, z_t, scalar, scalar), value)
    torch.testing.assert_close(kd_loss(z_s, z_t, column, column), value)


def test_kd_loss_with_a_temperature_for_each_sample():
    z_s, z_t = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    temperatures = torch.tensor([[1.0], [2.0], [5.0]], dtype=torch.float64)
    rows = [kd_loss(z_s[i : i + 1], z_t[i : i + 1], t.item(), t.item()) for i, t in enumerate(temperatures)]
    torch.testing.assert_close(kd_loss(z_s, z_t, temperatures, temperatures), torch.stack(rows).mean())


def test_kd_loss_gives_the_temperature_a_gradient():
    z_s, z_t = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    kd_loss(z_s, z_t, temperature, temperature).backward()
    slope = (kd_loss(z_s, z_t, 2 + 1e-6, 2 + 1e-6) - kd_loss(z_s, z_t, 2 - 1e-6, 2 - 1e-6)) / 2e-6
    assert temperature.grad.item() == pytest.approx(slope.item(), rel=1e-6)


def test_kd_loss_of_sure_networks_is_finite():
    z_s = (1e4 * torch.eye(2, 6)).requires_grad_()
    value = kd_loss(z_s, 1e4 * torch.eye(6)[[2, 3]], 1.0, 1.0)
    value.backward()
    assert value.item() == pytest.approx(1e4)
    assert z_s.grad.isfinite().all()


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [((8, 8), (4, 4), (4, 4)), ((2, 2), (6, 6), (2, 2)), ((8, 3), (4, 6), (4, 3)), ((5, 5), (5, 5), (5, 5))],
)
def test_match_size_pools_to_the_smaller_side(a, b, size):
    x, y = torch.randn(2, 3, *a), torch.randn(2, 5, *b)
    matched = match_size(x, y)
    assert [m.shape for m in matched] == [(2, 3, *size), (2, 5, *size)]
    for before, after in zip((x, y), matched, strict=True):
        if before.shape[-2:] == size:
            assert after is before


def test_match_size_averages():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert match_size(x, torch.zeros(1, 1, 2, 2))[0].tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


def test_unit_rows_by_hand():
    torch.testing.assert_close(unit_rows(torch.tensor([[3.0, 4.0], [0.0, -2.0]])), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)])
def test_unit_rows_have_the_length_1(shape):
    matrix = torch.logspace(-9, 9, shape[-2], dtype=torch.float64)[:, None] * torch.randn(shape, dtype=torch.float64)
    rows = unit_rows(matrix)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(shape[:-1], dtype=torch.float64))
    torch.testing.assert_close(rows * matrix.norm(dim=-1, keepdim=True), matrix)


def test_unit_rows_leaves_rows_of_zeros_and_next_to_nothing_as_they_are():
    """Dividing by a small constant would give them a gradient of 10¹², and dividing by their length NaN."""
    matrix = torch.tensor([[0.0, 0.0], [3e-13, 4e-13], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    rows = unit_rows(matrix)
    (rows * torch.tensor([1.0, 2.0])).sum().backward()
    torch.testing.assert_close(rows[:2], matrix[:2], rtol=0, atol=0)
    torch.testing.assert_close(matrix.grad[:2], torch.tensor([[1.0, 2.0]] * 2, dtype=torch.float64), rtol=0, atol=0)
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    expected = (torch.tensor([1.0, 2.0]) - 2.2 * direction) / 5  # what is orthogonal to the row, by its length
    torch.testing.assert_close(matrix.grad[2], expected)


@pytest.mark.parametrize(
    ("given", "wide"), [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_widen(given, wide):
    value = torch.tensor([0.5, -1.25], dtype=getattr(torch, given), requires_grad=True)
    result = widen(value)
    assert result.dtype == getattr(torch, wide)
    assert result.tolist() == [0.5, -1.25]
    if given == wide:
        assert result is value
    result.sum().backward()
    assert value.grad.tolist() == [1.0, 1.0]
