"""The projection of `vkd`."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import orthogonal


def orthogonal_projection(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias whose matrix P (outputs, inputs) stays orthogonal: PᵀP = I, or PPᵀ = I if it has more columns than rows.

    P is computed from its parameters at every access of `weight`; a forward accesses it once. State dict:
    `parametrizations.weight.original`, and `parametrizations.weight.0.base`, the random orthogonal matrix at which P starts.
    """
    # Torch's own choice for a matrix that is not square, products of Householder reflections, keeps signs in parameters that it rounds to
    # integers: one step with weight decay makes them, and so P, zero. From 1280 to 2048 features it takes 14 times as long, too.
    projection: nn.Linear = orthogonal(nn.Linear(inputs, outputs, bias=False), orthogonal_map="cayley")  # type: ignore[assignment]
    return projection
