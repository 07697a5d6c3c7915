"""Random projections of gradients whose dot products are right on average.

Of g (d,) the projection is s (K,) with s_b = Σ_{i: h(i) = b} σ(i)·g_i, where h(i) is one of K places and σ(i) is ±1, both at random. Then
E⟨s, s′⟩ = ⟨g, g′⟩, with a variance of at most (‖g‖²·‖g′‖² + ⟨g, g′⟩²)/K: as good as a dense K×d matrix of signs, for d additions instead of
K·d. Charikar, Chen, Farach-Colton 2002 (CountSketch); Weinberger et al. 2009, arXiv 0902.2206 (feature hashing).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


class Sketch:
    """A projection of named parts of one network onto `width` numbers.

    Places and signs are drawn once for each part, from `seed` and its name: 5 bytes for each parameter, and never a matrix.
    """

    def __init__(self, width: int, seed: int) -> None:
        self._width, self._seed = width, seed
        self._drawn: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, parts: Mapping[str, Tensor]) -> Tensor:
        """parts: (B, n) each. Returns (B, width), float64."""
        first = next(iter(parts.values()))
        total = torch.zeros(len(first), self._width, dtype=torch.float64, device=first.device)
        for name, part in parts.items():
            places, signs = self._draw(name, part)
            total.index_add_(1, places, (part * signs).double())
        return total

    def _draw(self, name: str, part: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self._drawn:
            digest = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
            draw = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)  # on the CPU: the same on every device
            count = part.shape[1]
            places = torch.randint(self._width, (count,), generator=draw, dtype=torch.int32)
            signs = torch.randint(2, (count,), generator=draw, dtype=torch.int8) * 2 - 1
            self._drawn[name] = places.to(part.device), signs.to(part.device)
        return self._drawn[name]
