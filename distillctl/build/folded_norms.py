"""Weights whose batch normalisation was folded into the convolutions, as converters for phones do, and what makes them trainable.

Such a norm only adds its bias. In evaluation that is the network that it was; but training normalises by the batch, which the folded
weights never saw, and nothing is left of what they know. Here each norm gets the statistics of its input on some training images, and a
scale and shift that undo them: the network computes what it did, and training changes it little by little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl.api.task import Task
from distillctl.data import train_loader
from distillctl.models.features import evaluating

_BATCH, _BATCHES = 32, 8
"""Images in a batch from which statistics are taken, and how many such batches."""
_NEAR = 1e-4
"""By how much a folded norm may differ from one that only adds: some converters keep var + eps at 1, some var."""

Norm = nn.modules.batchnorm._BatchNorm


def folded(model: nn.Module) -> list[Norm]:
    """The norms of a network in which all of them only add a bias; none where one does more, and where nothing was trained."""
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats and m.affine]
    if not all(_only_adds(norm) for norm in norms) or not any(norm.bias.any() for norm in norms):
        return []
    return norms


def unfold(model: nn.Module, task: Task, device: torch.device, seed: int) -> list[str]:
    """Gives the norms of folded weights statistics again, and a note on it; changes nothing else. The model is on the device already."""
    norms = folded(model)
    if not norms:
        return []
    seen: dict[Norm, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, Norm)
        values = args[0].detach().double().transpose(0, 1).flatten(1)
        seen[norm].append((values.mean(1), values.square().mean(1)))

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    loader = train_loader(task.data, batch_size=_BATCH, seed=seed, device=device, workers=0)
    try:
        with evaluating(model), torch.no_grad():
            for _, batch in zip(range(_BATCHES), loader.epoch(0), strict=False):
                model(batch.images)
    finally:
        loader.close()
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for norm, looks in seen.items():
            if looks:  # a norm that no forward reaches is left alone
                _undo(norm, looks)
    return [
        "the batch normalisation of the student's weights was folded into its convolutions; it has statistics of training images again, "
        "and computes the same"
    ]


def _only_adds(norm: Norm) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    return not norm.running_mean.any() and bool((scale - 1).abs().max() <= _NEAR)


def _undo(norm: Norm, looks: list[tuple[Tensor, Tensor]]) -> None:
    """Statistics of what the norm receives, and the scale and shift with which it gives what it gave."""
    mean, square = (torch.stack(values).mean(0) for values in zip(*looks, strict=True))
    var = (square - mean.square()).clamp(min=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    norm.bias.copy_(norm.bias.double() + scale * mean)
    norm.weight.copy_(scale * (var + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)


__all__ = ["folded", "unfold"]
