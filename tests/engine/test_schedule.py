from __future__ import annotations

import math

import pytest

from distillctl.engine.schedule import schedule


def test_constant_stays() -> None:
    rate = schedule("constant", 0.1)
    assert [rate(p) for p in (0.0, 0.5, 0.999)] == [0.1] * 3


def test_step_falls_at_the_published_epochs() -> None:
    rate = schedule("step", 0.05, milestones=[0.625, 0.75, 0.875], gamma=0.1)
    steps, epochs = 782, 240
    expected = {149: 0.05, 150: 0.005, 179: 0.005, 180: 0.0005, 209: 0.0005, 210: 0.00005, 239: 0.00005}
    for epoch, lr in expected.items():
        assert rate(epoch * steps / (epochs * steps)) == pytest.approx(lr)
        assert rate((epoch * steps + steps - 1) / (epochs * steps)) == pytest.approx(lr)


def test_cosine_goes_from_lr_to_min_lr() -> None:
    rate = schedule("cosine", 1.0, min_lr=0.2)
    assert rate(0.0) == 1.0
    assert rate(0.5) == pytest.approx(0.6)
    assert rate(1.0) == pytest.approx(0.2)
    assert rate(0.25) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_warmup_rises_linearly_and_meets_the_shape() -> None:
    rate = schedule("cosine", 1e-4, min_lr=1e-6, warmup=0.05, warmup_lr=1e-6)
    assert rate(0.0) == pytest.approx(1e-6)
    assert rate(0.025) == pytest.approx((1e-6 + 1e-4) / 2)
    assert rate(0.05) == pytest.approx(1e-4)
    falling = [rate(0.05 + 0.95 * k / 100) for k in range(101)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("wave", [False, True])
def test_cycles_come_after_the_warm_up(wave: bool) -> None:
    rate = schedule("cosine", 1.0, min_lr=0.2, warmup=0.5, cycles=2.5, wave=wave)

    def expected(number: int) -> float:
        within = (number * 25 % 1000) / 1000
        return 0.2 + 0.8 * 0.5 * (1 + math.cos((2 if wave else 1) * math.pi * within))

    for number in range(100):
        assert rate(0.5 + number / 200) == pytest.approx(expected(number)), number
    assert rate(0.25) == pytest.approx(0.5)


def test_a_wave_is_what_torch_does_after_t_max() -> None:
    """The published CUB runs: 143 epochs after the warm-up, T_max 10."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=1e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-6)
    ours = schedule("cosine", 1e-4, min_lr=1e-6, cycles=143 / 20, wave=True)
    for epoch in range(143):
        assert ours(epoch / 143) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()
