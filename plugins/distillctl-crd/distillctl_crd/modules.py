"""What `crd` keeps and draws on the device: the memory bank, and images of other classes.

The bank has one embedding for every training image, moved towards the newest one after each step. Images of other classes are drawn
without a rejection loop and without lists made by a data loader.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import Batch, RunError, draw_rows

# 2²⁷ equally likely draws on at most N rows: probabilities of two rows differ by less than N / 2²⁷ of themselves. PyTorch
# makes draws of fewer than 28 bits from one 32-bit number, wider ones from two.
_BITS = 27


class OtherClasses(nn.Module):
    """Uniform draws, with replacement, from the training images of all classes but the anchor's own.

    The images are lined up class by class, and that line is laid out twice. The images of other classes than y are then
    the N − n_y entries behind the first block of y, so that one uniform number gives one negative, for any class sizes.

    labels: int64, (N,), label of every training image.

    Raises:
        RunError: all images have one label.
    """

    line: Tensor
    """int64, (2N,): images by class, twice."""
    behind: Tensor
    """int64, (N,): for every image, where the first block of its class ends in `line`."""
    others: Tensor
    """int64, (N,): for every image, how many images have other labels."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        sizes = torch.bincount(labels)
        if int((sizes > 0).sum()) < 2:
            raise RunError(
                f"`crd` needs images of at least two classes, but all {len(labels)} training images have the label {int(labels[0])}"
                if len(labels)
                else "`crd` needs images of at least two classes, but there are no training images",
                hint="negatives are images of other classes; `kd` or `mgd` work without them",
            )
        order = labels.argsort(stable=True)
        # Tables of the data set, not state of the method: they do not go into checkpoints.
        self.register_buffer("line", torch.cat([order, order]), persistent=False)
        self.register_buffer("behind", sizes.cumsum(0)[labels], persistent=False)
        self.register_buffer("others", len(labels) - sizes[labels], persistent=False)

    def forward(self, batch: Batch, count: int) -> Tensor:
        """Negatives of the anchors `batch.index` (B,): positions of training images, int64, (B, count)."""
        index = batch.index
        draws = draw_rows(batch, lambda rows: torch.randint(1 << _BITS, (rows, count), device=index.device))
        draws = draws.mul_(self.others[index].unsqueeze(1)).bitwise_right_shift_(_BITS)  # uniform in [0, others)
        draws = draws.add_(self.behind[index].unsqueeze(1))
        return self.line.index_select(0, draws.flatten()).view_as(draws)


def new_bank(count: int, dim: int) -> Tensor:
    """A bank (count, dim), uniform in ±1/√(dim/3): rows have a length near 1."""
    return (2 * torch.rand(count, dim) - 1) / math.sqrt(dim / 3)


def move_rows(banks: Sequence[Tensor], index: Tensor, vectors: Sequence[Tensor], momentum: float) -> None:
    """Row ← N(momentum · row + (1 − momentum) · v) for the rows `index` of each bank, in place; N makes the length 1.

    banks: (N, d) each. index: int64, (B,). vectors: v (B, d), normalised, for each bank. An image that is twice in the batch takes its last
    embedding, on every device and with any number of threads.
    """
    last = last_of_each(index)
    for bank, v in zip(banks, vectors, strict=True):
        rows = momentum * bank[index] + (1 - momentum) * v[last]
        bank.index_copy_(0, index, F.normalize(rows, dim=1).to(bank.dtype))


def last_of_each(index: Tensor) -> Tensor:
    """For every element of int64 (B,), the position of the last element equal to it: [3, 1, 3] → [2, 1, 2]."""
    ordered, position = index.sort(stable=True)
    return position[torch.searchsorted(ordered, index, right=True) - 1]
