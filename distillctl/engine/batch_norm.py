"""Batch normalisation over the rows of all processes: torch's on a GPU, ours on a CPU, where torch has none.

    m = Σ x / n,  v = Σ (x − m)² / n,  y = (x − m) / √(v + ε) · γ + β,  the sums over all rows and positions of all processes

Gradients flow through the sums, so that N processes compute what one would.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillctl.distributed.process_group import current

_TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_Norm = nn.modules.batchnorm._BatchNorm
_classes: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Makes all batch normalisation within a module look at the rows of all processes while it trains."""
    for norm in module.modules():
        if not isinstance(norm, _Norm) or isinstance(norm, _Synchronised | nn.SyncBatchNorm):
            continue
        # Another class for the same object: weights, hooks and copies stay what they are.
        kind: type[nn.Module] = type(norm)
        base: type[nn.Module] = _TorchSynchronised if device.type == "cuda" and kind in _TORCHS else _Synchronised
        if (base, kind) not in _classes:
            _classes[base, kind] = type(f"Synchronised{kind.__name__}", (base, kind), {})
        norm.__class__ = _classes[base, kind]  # type: ignore[assignment]


class _TorchSynchronised(nn.SyncBatchNorm):
    @property
    def process_group(self) -> Any:  # type: ignore[override]  # torch sets it on each module
        """Not kept in each module: the average of the weights copies modules, and groups cannot be copied."""
        return current().features


class _Synchronised(_Norm):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if not self.training:
            result: Tensor = super().forward(input)
            return result
        with torch.autocast(input.device.type, enabled=False):
            x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
            rest = [d for d in range(x.ndim) if d != 1]
            shape = [1, -1, *[1] * (x.ndim - 2)]
            count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
            sums: Tensor = _Sum.apply(torch.cat([x.sum(rest), count]))
            total = sums[-1].detach()
            mean = sums[:-1] / total
            centred = x - mean.view(shape)
            squares: Tensor = _Sum.apply(centred.square().sum(rest))
            variance = squares / total
            result = centred * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                result = result * self.weight.view(shape) + self.bias.view(shape)
            self._remember(mean.detach(), variance.detach() * total / (total - 1))
        return result.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, with the unbiased variance, as torch does."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        share: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                share = 1.0 / self.num_batches_tracked
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return current().all_reduce(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return current().all_reduce(grads[0].clone())
