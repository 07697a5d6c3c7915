"""What a method needs when the rows of a batch lie on several processes. With one process, all of it does nothing.

A loss that is a mean over images needs none of it. Draw random numbers for images through `draw_rows`; let whatever changes a
buffer of the method come from `gather_rows`, so that the buffers are equal on all processes. A method that compares images with
each other says so in its spec (`compares_images`), and the user chooses by `gather = true` whether it sees the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.distributed.process_group import current


def draw_rows(batch: Batch, draw: Callable[[int], Tensor]) -> Tensor:
    """Random rows for the images of this process: those that one process would draw for them.

    draw: called with the number of images in the whole batch, gives that many rows.
    """
    count = len(batch.labels)
    return draw(count) if batch.total in (0, count) else draw(batch.total)[batch.start : batch.start + count]


def gather_rows(batch: Batch, rows: Tensor) -> Tensor:
    """The rows (B, …) of all processes in the order of the whole batch; gradients go back to where the rows came from."""
    if batch.total in (0, len(rows)):
        return rows
    gathered: Tensor = _Gather.apply(rows, batch.start, batch.total)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, start: int, total: int) -> Tensor:
        ctx.start, ctx.count = start, len(rows)
        return current().all_gather_rows(rows, total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        # Every process has the gradient of its own copy of the loss; the mean over processes is taken of the parameters' gradients.
        # A copy: autograd may hand the same tensor to others.
        whole = current().all_reduce(grads[0].clone(memory_format=torch.contiguous_format))
        return whole[ctx.start : ctx.start + ctx.count], None, None


__all__ = ["draw_rows", "gather_rows"]
