"""Builds the optimizers of torch from groups and options."""

from __future__ import annotations

from typing import Any

import torch

from distillctl.api.optimizer import split_decay
from distillctl.builtin.optimizer_options import AdamWOptions, SGDOptions

Group = dict[str, Any]


def build_sgd(groups: list[Group], options: SGDOptions) -> torch.optim.Optimizer:
    """SGD with momentum; on CUDA in its fused form, which is one kernel instead of several for each tensor."""
    optimizer = torch.optim.SGD(
        split_decay(groups, options.decay),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        fused=_on_cuda(groups),
    )
    if optimizer.defaults["fused"]:
        _begin_momenta(optimizer)
        optimizer.register_load_state_dict_post_hook(_begin_momenta)
    return optimizer


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


def _begin_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Momenta of zero where there are none, which give what torch's first step does, to the bit.

    The fused kernel takes uninitialised memory as momenta in its first step and leaves it as it is if gradients overflow; and it
    refuses a group in which only some parameters have a momentum, as after a first gradient that comes later.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group["momentum"] else ():
            optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p))


def _on_cuda(groups: list[Group]) -> bool:
    return all(p.is_cuda for group in groups for p in group["params"])
