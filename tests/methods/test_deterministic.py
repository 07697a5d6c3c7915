"""What a deterministic run differentiates on a GPU has a deterministic algorithm there, which CPUs tell by the names of operations."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from distillctl.plugin.registry import Registry

REFUSED = {
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_linear1d_backward",
    "reflection_pad2d_backward",
    "grid_sampler_2d_backward",
    "nll_loss2d_forward",
    "put_",
    "histc",
    "median.dim",
}
"""Of `torch.use_deterministic_algorithms`: what raises an error on CUDA and may come up here."""
QUICK = ("at", "reviewkd", "sdd", "simkd")  # `match_size`, averages of their own, and a layer in a head
METHODS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in (spec.name for spec in Registry.load().methods)
    if name != "none"
]


class Refuse(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        assert not {name, f"{name}.{func._overloadname}"} & REFUSED
        return func(*args, **(kwargs or {}))


def refused_in_steps(bench: Any, table: str, student: str, teacher: str | None) -> None:
    profile = bench.profile(f"[method]\n{table}", student, teacher, extra="dropout = 0.1", train="deterministic = true")
    with Refuse():
        experiment, _ = bench.run(profile, steps=1)
    experiment.close()


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a deterministic run on a GPU."""
    monkeypatch.setattr("distillctl.api.pooling._in_order", lambda maps: True)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("method", METHODS)
def test_methods(bench: Any, method: str) -> None:
    needs = bench.registry.methods.get(method).needs_teacher
    same = method in ("fsp", "kdsvd", "tfkd-self")
    refused_in_steps(bench, f'name = "{method}"', "cifar/resnet8", ("cifar/resnet8" if same else "cifar/vgg8") if needs else None)


@pytest.mark.usefixtures("in_order")
def test_fsp_by_maxima(bench: Any) -> None:
    refused_in_steps(bench, 'name = "fsp"\npool = "max"', "cifar/resnet8", "cifar/resnet14")
