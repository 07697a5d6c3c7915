"""Pooling that a deterministic run on a GPU may use gives what torch's adaptive pooling gives, and never differentiates that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distillctl import pool_average, pool_maximum
from distillctl.api.pooling import pools_in_order

SIZES = [
    ((8, 8), (4, 4)),
    ((8, 6), (4, 3)),
    ((7, 7), (4, 3)),
    ((9, 5), (2, 5)),
    ((4, 4), (4, 4)),
    ((3, 2), (7, 4)),
    ((6, 6), (1, 1)),
    ((5, 6), (1, 2)),
]


class Refuse(TorchDispatchMode):
    """Raises at what torch refuses on CUDA when deterministic algorithms are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "adaptive" not in (name := func._overloadpacket.__name__) or "backward" not in name, name
        return func(*args, **(kwargs or {}))


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a deterministic run on a GPU."""
    monkeypatch.setattr("distillctl.api.pooling._in_order", lambda maps: True)


def both(function: Any, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The result and its gradient."""
    x = x.clone().requires_grad_()
    y = function(x, size)
    weights = torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    return y.detach(), gradient


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize(("ours", "torchs"), [(pool_average, F.adaptive_avg_pool2d), (pool_maximum, F.adaptive_max_pool2d)])
def test_values_and_gradients_are_those_of_torch(ours: Any, torchs: Any, before: tuple[int, int], after: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for shape in ((2, 3, *before), (3, *before)):
        maps = torch.randn(shape).round(decimals=1)  # with ties
        with Refuse():
            found = both(ours, maps, after)
        for one, other in zip(found, both(torchs, maps, after), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("in_order")
def test_averages_in_half_precision_are_rounded_once() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 7, 7)
    exact = F.adaptive_avg_pool2d(maps.bfloat16().float(), (3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        found = pool_average(maps.bfloat16(), (3, 3))
        wide = pool_average(maps, (3, 3))
    assert torch.equal(found, exact.bfloat16())
    assert wide.dtype == torch.float32
    torch.testing.assert_close(wide, F.adaptive_avg_pool2d(maps, (3, 3)))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("ours", "torchs"), [(pool_average, F.adaptive_avg_pool2d), (pool_maximum, F.adaptive_max_pool2d)])
def test_on_a_cpu_it_is_torchs_own(ours: Any, torchs: Any, deterministic: bool) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 9, 7)
    torch.use_deterministic_algorithms(deterministic)
    try:
        for size in ((3, 3), (3, 7)):
            assert all(torch.equal(a, b) for a, b in zip(both(ours, maps, size), both(torchs, maps, size), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("size", [3, (3, 2), (None, 2), (2, None), 1])
@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_layers_are_replaced_in_place(layer: Any, size: Any) -> None:
    torch.manual_seed(0)
    pool = layer(size)
    seen: list[Tensor] = []
    pool.register_forward_hook(lambda _, args, output: seen.append(output))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(pool))
    images = torch.randn(2, 3, 7, 5)
    before = model(images).detach()
    keys = list(model.state_dict())
    pools_in_order(model)
    with Refuse():
        after = model(images)
        after.sum().backward()
    torch.testing.assert_close(after.detach(), before)
    assert len(seen) == 2
    assert list(model.state_dict()) == keys
    assert isinstance(model[1][0], layer)


def test_a_layer_that_gives_places_stays() -> None:
    layer = nn.AdaptiveMaxPool2d(2, return_indices=True)
    pools_in_order(layer)
    assert len(layer(torch.randn(1, 1, 4, 4))) == 2
