"""The size of every tensor that is made, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillctl_nst.losses import nst_loss

BATCH, CHANNELS = 2, (12, 16)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


@pytest.mark.parametrize("kernel", ["poly", "linear", "rbf"])
@pytest.mark.parametrize("size", [(2, 3), (4, 4), (9, 8)], ids=str)
def test_d21_no_tensor_of_channels_by_channels_by_positions(size: tuple[int, int], kernel: str) -> None:
    student, teacher = torch.randn(BATCH, CHANNELS[0], *size, requires_grad=True), torch.randn(BATCH, CHANNELS[1], *size)
    with Largest() as made:
        nst_loss(student, teacher, kernel=kernel).backward()
    positions, channels = size[0] * size[1], max(CHANNELS)
    assert 0 < made.elements <= BATCH * channels * max(channels, positions)


def test_the_naive_form_would_be_seen() -> None:
    rows = torch.randn(BATCH, 12, 6, requires_grad=True)
    with Largest() as made:
        (rows.unsqueeze(1) * rows.unsqueeze(2)).sum(-1).square().mean().backward()
    assert made.elements == BATCH * 12 * 12 * 6


def test_deep_stage_of_a_wide_network_needs_little() -> None:
    """2,048 channels on 2×2 positions: a kernel matrix would have 4 million elements for each image, the moments have 16."""
    student, teacher = torch.randn(BATCH, 256, 2, 2, requires_grad=True), torch.randn(BATCH, 2048, 2, 2)
    with Largest() as made:
        nst_loss(student, teacher).backward()
    assert made.elements <= teacher.numel()
