from __future__ import annotations

import math

import torch
from torch import nn

from distillctl.engine.ema import ModelEMA


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def test_closed_form_after_n_updates() -> None:
    """e_n by a plain loop in float64, BatchNorm statistics included, integer buffers left alone."""
    net = model()
    ema = ModelEMA(net, 0.9, 5.0)
    expected = {k: v.clone() for k, v in net.state_dict().items()}
    for n in range(1, 8):
        net(torch.randn(6, 3, dtype=torch.float64))
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * n)
        ema.update()
        decay = 0.9 * (1 - math.exp(-n / 5.0))
        for k, v in net.state_dict().items():
            if v.is_floating_point():
                expected[k] = decay * expected[k] + (1 - decay) * v
    for k, v in ema.model.state_dict().items():
        torch.testing.assert_close(v, expected[k], rtol=1e-12, atol=0)
    assert ema.updates == 7
    assert int(ema.model[1].num_batches_tracked) == 0  # type: ignore[index]


def test_constant_weights_are_a_fixed_point_and_decay_is_constant_without_ramp() -> None:
    net = model()
    ema = ModelEMA(net, 0.5, 0.0)
    with torch.no_grad():
        net[0].weight.fill_(1.0)  # type: ignore[index]
    before = ema.model[0].weight.clone()  # type: ignore[index]
    ema.update()
    torch.testing.assert_close(ema.model[0].weight, 0.5 * before + 0.5)  # type: ignore[index]
    for _ in range(60):
        ema.update()
    torch.testing.assert_close(ema.model[0].weight, net[0].weight)  # type: ignore[index]


def test_state_goes_round() -> None:
    net = model()
    ema = ModelEMA(net, 0.9, 5.0)
    with torch.no_grad():
        net[0].weight.add_(1)  # type: ignore[index]
    ema.update()
    other = ModelEMA(model(), 0.9, 5.0)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.model[0].weight, ema.model[0].weight)  # type: ignore[index]
