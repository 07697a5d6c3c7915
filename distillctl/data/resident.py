"""Loaders for images that lie in memory: the whole set as uint8 on the device, a batch cut out of it at once.

Crop and flip are one `index_select` of pixels: for every output pixel the number of its source pixel, with the flip
folded into the numbers, and one extra black pixel for all that lies outside of the image. Draws come from a hash of
(seed, epoch, index), computed on the device; nothing waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from distillctl.api.data import ArrayImages, Splits, take_labels, take_targets
from distillctl.api.method import Batch
from distillctl.data.batches import Tta
from distillctl.data.hashing import VIEW, hash_index
from distillctl.data.order import WHOLE, Share, balanced_order, batch_bounds, epoch_order, image_of
from distillctl.data.pixels import Normalise

_TOGETHER = 16 << 20
"""On a GPU, bytes of normalised pixels that are cut at once, for several batches: to launch it for each would take longer than the work."""
_BITS = 21  # of the hash for each draw; the bias of scaling 21 bits to a few offsets is below 10⁻⁵


class PixelTable:
    """All pixels of a set of images as rows of C bytes, and a black one at the end."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        count, self.height, self.width, self.channels = images.shape
        self._outside = count * self.height * self.width
        self._rows = torch.zeros(self._outside + 1, self.channels, dtype=torch.uint8, device=device)
        self._rows[:-1].copy_(images.reshape(-1, self.channels))
        # Two numbers of the outside pixel are added below, and half-size numbers are faster.
        self._number = torch.int32 if 2 * self._outside < 2**31 else torch.int64

    def cut(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
        """Windows of the images at `index`, black where they lie outside: uint8, (B, C, size, size).

        index: int64, (B,). top, left: int64, (B,), corner of the window in pixels, may be negative. flip: bool, (B,),
        mirrors the window left to right after the cut.
        """
        line = torch.arange(size, device=index.device)
        y = top[:, None] + line
        x = left[:, None] + torch.where(flip[:, None], size - 1 - line, line)
        first = index[:, None] * (self.height * self.width) + y * self.width
        rows = torch.where((y >= 0) & (y < self.height), first, self._outside).to(self._number)
        columns = torch.where((x >= 0) & (x < self.width), x, self._outside).to(self._number)
        pixels = (rows[:, :, None] + columns[:, None, :]).clamp_(max=self._outside)
        return self._rows.index_select(0, pixels.view(-1)).view(len(index), size, size, -1).permute(0, 3, 1, 2)

    def centre(self, index: Tensor, size: int) -> Tensor:
        """The central window of each image; a smaller image gets a black frame."""
        zero = torch.zeros_like(index)
        return self.cut(index, zero + _middle(self.height, size), zero + _middle(self.width, size), zero.bool(), size)


def crop_flip(index: Tensor, seed: int, epoch: int, choices: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Draws for each image: top in [0, choices[0]), left in [0, choices[1]), and whether to flip; each (B,).

    They depend on seed, epoch and the image alone, not on the other images of the batch.
    """
    h = hash_index(index, seed, epoch, VIEW)
    low = (1 << _BITS) - 1
    top = ((h & low) * choices[0]) >> _BITS
    left = (((h >> _BITS) & low) * choices[1]) >> _BITS
    return top, left, ((h >> (2 * _BITS)) & 1).bool()


class ResidentTrainLoader:
    """Training batches of images in memory. Implements `TrainLoader`."""

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        channels_last: bool = False,
        share: Share = WHOLE,
        balanced: bool = False,
    ) -> None:
        images = splits.train
        assert isinstance(images, ArrayImages)
        self._view, self._seed, self.share = splits.view, seed, share
        self._home = _home(images, device)
        self._table = PixelTable(images.images, self._home)
        self._batch = _Batches(images, self._home, Normalise(splits.mean, splits.std, device, channels_last=channels_last), device)
        self._count = len(images)
        self._balanced = images.labels.to(self._home) if balanced else None
        self._bounds = batch_bounds(self._count, batch_size, smallest=2 * share.processes)
        self.steps = len(self._bounds)
        size = batch_size * self._table.channels * splits.view.size**2 * 4
        self._group = max(1, _TOGETHER // size) if self._home.type == "cuda" else 1

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, from batch `first` on."""
        if self._balanced is None:
            order = epoch_order(self._count, self._seed, epoch, self._home)
        else:
            order = balanced_order(self._balanced, self._seed, epoch, self._home)
        bounds = self._bounds[first:]
        for at in range(0, len(bounds), self._group):
            group = bounds[at : at + self._group]
            rows = [self.share.rows(order[start:end]) for start, end in group]
            draws = rows[0] if len(rows) == 1 else torch.cat(rows)
            index = draws if self._balanced is None else image_of(draws)
            yield from self._batch.several(
                self._pixels(draws, index, epoch), index, [len(r) for r in rows], [end - start for start, end in group]
            )

    def _pixels(self, draws: Tensor, index: Tensor, epoch: int) -> Tensor:
        view, table = self._view, self._table
        if view.augment == "none":
            return table.centre(index, view.size)
        choices = (table.height + 2 * view.padding - view.size + 1, table.width + 2 * view.padding - view.size + 1)
        top, left, flip = crop_flip(draws, self._seed, epoch, choices)
        return table.cut(index, top - view.padding, left - view.padding, flip, view.size)

    def close(self) -> None:
        """Nothing to end."""


class ResidentEvalLoader:
    """Evaluation batches of images in memory. Implements `EvalLoader`."""

    def __init__(
        self,
        splits: Splits,
        images: ArrayImages,
        *,
        batch_size: int,
        device: torch.device,
        tta: Tta = "",
        channels_last: bool = False,
        share: Share = WHOLE,
    ) -> None:
        self._size, self._flip = splits.view.size, tta == "flip"
        self._home = _home(images, device)
        self._table = PixelTable(images.images, self._home)
        self._batch = _Batches(images, self._home, Normalise(splits.mean, splits.std, device, channels_last=channels_last), device)
        self._bounds = batch_bounds(len(images), batch_size)[share.rank :: share.processes]
        self.count = len(images)

    def __iter__(self) -> Iterator[Batch]:
        for start, end in self._bounds:
            index = torch.arange(start, end, device=self._home)
            pixels = self._table.centre(index, self._size)
            if self._flip:
                pixels = torch.stack([pixels, pixels.flip(-1)], dim=1)
            yield self._batch(pixels, index, end - start)

    def close(self) -> None:
        """Nothing to end."""


class _Batches:
    """Puts batches together on the device, from pixels and the positions of their images."""

    def __init__(self, images: ArrayImages, home: torch.device, normalise: Normalise, device: torch.device) -> None:
        self._labels = images.labels.to(home)
        self._targets = images.targets.to(home) if isinstance(images.targets, Tensor) else images.targets
        self._normalise, self._device = normalise, device

    def __call__(self, pixels: Tensor, index: Tensor, total: int) -> Batch:
        (batch,) = self.several(pixels, index, [len(index)], [total])
        return batch

    def several(self, pixels: Tensor, index: Tensor, counts: list[int], totals: list[int]) -> Iterator[Batch]:
        """Batches that lie one after the other. counts: images of each. totals: over all processes."""
        images = self._normalise(self._moved(pixels))
        labels = self._moved(take_labels(self._labels, index))
        targets = take_targets(self._targets, index)
        targets = self._moved(targets) if isinstance(targets, Tensor) else targets
        index = self._moved(index)
        start = 0
        for count, total in zip(counts, totals, strict=True):
            rows = slice(start, start + count)
            start += count
            own = labels[rows] if len(labels) else labels
            yield Batch(images[rows], own, index[rows], total=total, targets=None if targets is None else targets[rows])

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)


def _home(images: ArrayImages, device: torch.device) -> torch.device:
    """Where the pixels live: on the device if they take no more than half of its free memory, otherwise on the CPU."""
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if images.images.numel() <= free // 2 else torch.device("cpu")


def _middle(length: int, size: int) -> int:
    """Where a centred window begins, as torchvision rounds it."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)
