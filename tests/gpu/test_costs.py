"""What steps cost. Figures are told, and compared only with ceilings that nothing but a fault reaches. To be run alone on the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from distillctl.commands.benchmark import _Runner
from distillctl.commands.benchmark import bench as measured
from distillctl.engine.step import Step

pytestmark = pytest.mark.timeout(120)
PAIR = {"student": "cifar/resnet8x4", "teacher": "cifar/resnet32x4", "precision": "bf16"}

OURS = 110
"""Kernels that a step of `kd` may launch beside the bare networks."""


def seconds(device: torch.device, work: Callable[[], Any], times: int = 10) -> float:
    """Of one call, over several that are sent one after the other, after two that do not count."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        work()
    wait()
    started = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - started) / times


class Operations(TorchDispatchMode):
    """On a CPU, what stands for kernels: operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def launches(device: torch.device, work: Callable[[], Any]) -> int:
    """Kernels that the host sends in one call."""
    work()
    if device.type == "cpu":
        with Operations() as operations:
            work()
        return operations.count
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return sum(one.count for one in profiler.key_averages() if one.key.startswith(("cudaLaunchKernel", "cuLaunchKernel")))


@pytest.mark.parametrize("method", ["kd", "crd", "reviewkd"])
def test_launches_of_a_step(bench: Any, tell: Any, method: str) -> None:
    small = {} if bench.device.type == "cpu" else PAIR
    with bench.made(method, **small) as experiment:
        runner = _Runner(experiment)
        together = runner._together
        runner.engine()
        whole = launches(bench.device, runner.engine) / together
        bare = launches(bench.device, runner.bare) / together
    tell(f"{method}: launches of a step", whole)
    tell(f"{method}: of the bare networks", bare)
    assert bare > 10
    assert method != "kd" or bench.device.type == "cpu" or whole - bare <= OURS


@pytest.mark.parametrize("method", ["kd", "crd", "reviewkd", "kdsvd"])
def test_time_of_a_step(bench: Any, tell: Any, method: str) -> None:
    """Of resnet8x4 with resnet32x4 on batches of 64."""
    small = {} if bench.device.type == "cpu" else PAIR
    with bench.made(method, batch=8 if not small else 20, **small) as experiment:
        step, batch = Step(experiment), next(iter(experiment.loader.epoch(0)))
        if small:  # the same images several times, which methods do not mind here
            parts = (torch.cat([part] * 4)[:64] for part in (batch.images, batch.labels, batch.index))
            batch = type(batch)(*parts)
        took = seconds(bench.device, lambda: step(batch, 1), 10 if small else 2)
        tell(f"{method}: ms a step", 1000 * took)
    assert took < 5


@pytest.mark.parametrize("cudnn_benchmark", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engine_over_bare(bench: Any, tell: Any, monkeypatch: pytest.MonkeyPatch, precision: str, cudnn_benchmark: bool) -> None:
    """With channels first in float32 and last in bf16."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", cudnn_benchmark)
    small = {} if bench.device.type == "cpu" else PAIR
    with bench.made("kd", **{**small, "precision": precision}) as experiment:
        result = measured(experiment, steps=5 if small else 2, warmup=2)
    tell("engine over bare", result.ratio)
    tell("ms a step", 1000 * result.step)
    tell("parts, ms", {name: round(1000 * value, 3) for name, value in result.parts.items()})
    assert result.ratio > 0


def by_bags(grad: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Each row gathered and added; its weights' gradient is not wanted."""
    return F.embedding_bag(rows, bank, per_sample_weights=grad, mode="sum")


def by_product(grad: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Weights added up for each row of the bank, and one product."""
    return grad.new_zeros(len(rows), len(bank)).scatter_add_(1, rows, grad) @ bank


def test_crds_backward_both_ways(bench: Any, ieee: None, tell: Any) -> None:
    """What it does, and the two ways there are, give the same gradient."""
    from distillctl_crd.losses import scores

    small = bench.device.type == "cpu"
    batch, negatives, count, length = (4, 64, 200, 16) if small else (64, 16384, 50000, 128)
    draw = torch.Generator().manual_seed(0)
    bank, v, grad = (
        torch.randn(*shape, generator=draw).to(bench.device) for shape in ((count, length), (batch, length), (batch, negatives))
    )
    rows = torch.randint(count, (batch, negatives), generator=draw).to(bench.device)
    v.requires_grad_()
    given = scores(v, bank, rows)
    (ours,) = torch.autograd.grad(given, v, grad, retain_graph=True)
    expected = torch.zeros(batch, count, dtype=torch.float64, device=bench.device).scatter_add_(1, rows, grad.double()) @ bank.double()
    torch.testing.assert_close(given, (v @ bank.T).gather(1, rows), rtol=1e-3, atol=1e-3)
    ways = {"bags": lambda: by_bags(grad, bank, rows), "product": lambda: by_product(grad, bank, rows)}
    for name, value in {"ours": ours, **{name: way() for name, way in ways.items()}}.items():
        assert float((value.double() - expected).norm() / expected.norm()) < 1e-4, name
    ways["ours"] = lambda: torch.autograd.grad(given, v, grad, retain_graph=True)[0]
    for name, way in ways.items():
        tell(f"crd's backward, {name}, ms", 1000 * seconds(bench.device, way))
    tell("crd's forward, ms", 1000 * seconds(bench.device, lambda: scores(v, bank, rows)))
