"""Builds the optimizers of torch from groups and options."""

from __future__ import annotations

from typing import Any, Literal

import torch

from distillctl.builtin.optimizer_options import AdamWOptions, SGDOptions

Group = dict[str, Any]


def build_sgd(groups: list[Group], options: SGDOptions) -> torch.optim.Optimizer:
    """SGD with momentum; on CUDA in its fused form, which is one kernel instead of several for each tensor."""
    return torch.optim.SGD(
        split_decay(groups, options.decay),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        fused=_on_cuda(groups),
    )


def build_adamw(groups: list[Group], options: AdamWOptions) -> torch.optim.Optimizer:
    """AdamW; on CUDA in its fused form."""
    return torch.optim.AdamW(
        split_decay(groups, options.decay),
        lr=options.lr,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=_on_cuda(groups),
    )


def split_decay(groups: list[Group], decay: Literal["all", "weights"]) -> list[Group]:
    """With `weights`, parts each group in what decays (two dimensions and more) and what does not (biases, norms)."""
    if decay == "all":
        return groups
    result = []
    for group in groups:
        heavy = [p for p in group["params"] if p.ndim > 1]
        light = [p for p in group["params"] if p.ndim <= 1]
        if heavy:
            result.append({**group, "params": heavy})
        if light:
            result.append({**group, "params": light, "weight_decay": 0.0})
    return result


def _on_cuda(groups: list[Group]) -> bool:
    return all(p.is_cuda for group in groups for p in group["params"])
