"""What optimizers share: groups that do not decay, and the base of those that are given two gradients."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer


def split_decay(groups: list[dict[str, Any]], decay: Literal["all", "weights"]) -> list[dict[str, Any]]:
    """With `weights`, parts each group in what decays (two dimensions and more) and what does not (biases, norms).

    A group that has a key `decay` of its own is parted by that.
    """
    result = []
    for stated in groups:
        group = {key: value for key, value in stated.items() if key != "decay"}
        if stated.get("decay", decay) == "all":
            result.append(group)
            continue
        heavy = [p for p in group["params"] if p.ndim > 1]
        light = [p for p in group["params"] if p.ndim <= 1]
        if heavy:
            result.append({**group, "params": heavy})
        if light:
            result.append({**group, "params": light, "weight_decay": 0.0})
    return result


class SeparateGradients(Optimizer):
    """An optimizer that is given the gradients of the label loss and of the methods' terms apart.

    Before `step`, `p.grad` is the gradient of the weighted label loss, or None where it does not reach p, and
    `distillation_grads[p]` that of the weighted sum of all terms of all methods; a parameter that they do not reach is missing. Both are
    unscaled, and clipped together. The engine empties them after the step.
    """

    distillation_grads: dict[Tensor, Tensor]


__all__ = ["SeparateGradients", "split_decay"]
