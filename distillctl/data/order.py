"""In which order an epoch goes through the training images, how it is cut into batches, and a batch among processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from distillctl.api.data import NO_LABEL
from distillctl.data.hashing import ORDER, hash_index

T = TypeVar("T", Tensor, list[int])
N = TypeVar("N", Tensor, int)

_BITS = 40
"""Of a draw, for the position of its image."""


def epoch_order(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation of 0 … count − 1 that depends on seed and epoch alone: int64, (count,), on the device.

    Sorting random keys needs no generator, no copy from the host, and gives the same order on every device.
    """
    keys = hash_index(torch.arange(count, device=device), seed, epoch, ORDER)
    return keys.argsort(stable=True)


def balanced_order(labels: Tensor, seed: int, epoch: int, device: torch.device) -> Tensor:
    """As many draws as there are images, each class equally often: int64, (count,), on the device. Seed, epoch and labels decide.

    A class with fewer images than draws is gone through again and again, in the same order; of a larger one, each epoch has other images.
    If it does not come out even, some classes, others in each epoch, have one draw more.

    A draw is the position of its image, with the number of its earlier draws in this epoch in higher bits (`image_of`). It stands for the
    image in the hash of a view, so that repeated images are seen in different views, and the first draw as without a sampler.
    """
    _, own, sizes = labels.to(device).unique(return_inverse=True, return_counts=True)
    count, classes = len(labels), len(sizes)
    places = torch.arange(count, device=device)
    shuffled = epoch_order(count, seed, epoch, device)
    by_class = shuffled[own[shuffled].argsort(stable=True)]
    quotas = torch.full_like(sizes, count // classes)
    quotas[hash_index(places[:classes], seed, epoch, ORDER, 1).argsort(stable=True)[: count % classes]] += 1
    drawn = torch.arange(classes, device=device).repeat_interleave(quotas, output_size=count)  # the class of each draw
    number = places - (quotas.cumsum(0) - quotas)[drawn]
    draws = by_class[(sizes.cumsum(0) - sizes)[drawn] + number % sizes[drawn]] + (number // sizes[drawn] << _BITS)
    mixed: Tensor = draws[hash_index(places, seed, epoch, ORDER, 2).argsort(stable=True)]
    return mixed


def mixed_order(labels: Tensor, share: float, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Every labelled image once, and among them those without a label as a share of any stretch: int64 draws, on the device.

    Position p has an image without a label if ⌊(p + 1)·share⌋ > ⌊p·share⌋. They come in turn: where one epoch ends the next goes on, and
    each pass over them has an order of its own. A draw is as in `balanced_order`, so that an image that comes twice in an epoch is seen in
    two views.

    labels: `NO_LABEL` where there is none. share: in (0, 1).
    """
    places = torch.arange(len(labels), device=device)
    with_label, bare = places[labels.to(device) != NO_LABEL], places[labels.to(device) == NO_LABEL]
    length = mixed_length(len(with_label), share)
    steps = (torch.arange(length + 1, dtype=torch.float64, device=device) * share).floor().long()
    free = steps.diff() > 0
    many = length - len(with_label)
    counted = torch.arange(many, device=device) + epoch * many
    passes = counted // len(bare)
    first = epoch * many // len(bare)
    last = max(first, ((epoch + 1) * many - 1) // len(bare))
    orders = [bare[hash_index(places[: len(bare)], seed, number, ORDER, 3).argsort(stable=True)] for number in range(first, last + 1)]
    draws = torch.empty(length, dtype=torch.int64, device=device)
    draws[~free] = with_label[epoch_order(len(with_label), seed, epoch, device)]
    draws[free] = torch.stack(orders)[passes - first, counted % len(bare)] + (passes - first << _BITS)
    return draws


def mixed_length(labelled: int, share: float) -> int:
    """Images of an epoch that goes once through so many labelled ones, where those without a label are this share."""
    length = math.ceil(labelled / (1 - share))
    while length - math.floor(length * share) > labelled:
        length -= 1
    while length - math.floor(length * share) < labelled:
        length += 1
    return length


def image_of(draw: N) -> N:
    """The position of the image of a draw, or of each of several."""
    return draw & ((1 << _BITS) - 1)


def batch_bounds(count: int, batch_size: int, *, smallest: int = 1) -> list[tuple[int, int]]:
    """Start and end of every batch. Nothing is dropped; the last batch may be short.

    smallest: a last batch of fewer images joins the one before it. Training needs two for every process, since BatchNorm cannot
        train on one value.
    """
    starts = list(range(0, count, batch_size))
    bounds = [(start, min(start + batch_size, count)) for start in starts]
    if batch_size > 1 and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] < smallest:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


def grouped_batches(groups: Tensor, batch_size: int, seed: int, epoch: int, *, smallest: int = 1) -> list[list[int]]:
    """The batches of an epoch, each of images of one group alone. Every image comes once; seed, epoch and groups decide.

    The images of a group come in the order of `epoch_order` and are cut by `batch_bounds`, so that each group ends with a batch that may be
    short; all batches are then shuffled. How many there are is the same in every epoch. A group of fewer than `smallest` images
    joins the largest one.

    groups: int64, (N,), a number for each image.
    """
    kinds, own, sizes = groups.unique(return_inverse=True, return_counts=True)
    own = torch.where(sizes[own] < smallest, sizes.argmax(), own)
    shuffled = epoch_order(len(groups), seed, epoch, groups.device)
    parts = [shuffled[own[shuffled] == kind].tolist() for kind in range(len(kinds))]
    batches = [part[start:end] for part in parts for start, end in batch_bounds(len(part), batch_size, smallest=smallest)]
    turns = hash_index(torch.arange(len(batches)), seed, epoch, ORDER, 4).argsort(stable=True)
    return [batches[turn] for turn in turns.tolist()]


class Piece(NamedTuple):
    """The rows of a batch that one process computes at one time.

    start, end: in the batch. before: rows of lower processes at that time. total: rows of all processes at that time.
    """

    start: int
    end: int
    before: int
    total: int


@dataclass(frozen=True)
class Share:
    """What one process takes of every batch.

    parts: a batch is computed in so many parts, one after the other.
    """

    rank: int = 0
    processes: int = 1
    parts: int = 1

    def pieces(self, count: int) -> list[Piece]:
        """Its pieces of a batch of `count` images: one for each part. Sizes differ by one at most.

        A short batch is cut into fewer parts, so that every piece has two images.
        """
        parts = max(1, min(self.parts, count // (2 * self.processes)))
        result = []
        for part in range(parts):
            start, end = _piece(count, parts, part)
            first, last = _piece(end - start, self.processes, self.rank)
            result.append(Piece(start + first, start + last, first, end - start))
        return result

    def rows(self, batch: T) -> T:
        """Its rows of a whole batch: of a tensor's first dimension, or of a list."""
        pieces = self.pieces(len(batch))
        if len(pieces) == self.processes == 1:
            return batch
        parts = [batch[piece.start : piece.end] for piece in pieces]
        return torch.cat(parts) if isinstance(batch, Tensor) else [row for part in parts for row in part]


WHOLE = Share()
"""Of a process that trains alone."""


def _piece(count: int, pieces: int, number: int) -> tuple[int, int]:
    """Start and end of a piece; the first ones are larger by one if it does not come out even."""
    size, longer = divmod(count, pieces)
    start = number * size + min(number, longer)
    return start, start + size + (number < longer)
