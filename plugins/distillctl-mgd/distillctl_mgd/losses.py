"""The loss of `mgd`, as a function of tensors."""

from __future__ import annotations

from torch import Tensor

from distillctl import widen


def generation_loss(generated: Tensor, target: Tensor, normalize: str) -> Tensor:
    """Squared distance of two maps (B, C, H, W), 0-dim: summed over (C, H, W) and averaged over B, or averaged over all (`mean`).

    Half precision is widened to float32 first: a sum of 10⁵ squares overflows float16.
    """
    squares = (widen(generated) - widen(target)).square()
    return squares.mean() if normalize == "mean" else squares.sum() / len(squares)
