"""Batches in which images are mixed with one another, or lose a part: on the device, before teacher and student see them.

- Mixup (Zhang et al. 2018, arXiv 1710.09412): x = λ·x_i + (1 − λ)·x_j with λ ~ Beta(α, α).
- CutMix (Yun et al. 2019, arXiv 1905.04899): a rectangle of x_j stands in x_i; λ is the share of x_i that is left.
- Random erasing (Zhong et al. 2017, arXiv 1708.04896): a rectangle becomes the mean colour.

λ and the rectangle of CutMix are drawn once a batch; j is the image before i among those that this process has. Erasing draws for
every image.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.method import Batch

# Of the area and of height to width, as published.
_AREA = (0.02, 0.4)
_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Mixing:
    """What is done to the batches of a run.

    mixup, cutmix: α of the Beta distribution, or None. With both, each batch takes one of the two at random.
    share: of the batches that are mixed.
    erase: share of the images that lose a rectangle.
    classes: how many there are; 0 where images have no labels.
    """

    mixup: float | None = None
    cutmix: float | None = None
    share: float = 1.0
    erase: float | None = None
    classes: int = 0

    def __call__(self, batch: Batch, seed: int, rows: list[int]) -> Batch:
        """The batch as teacher and student see it. The same seed gives the same; nothing is drawn from torch's generators.

        rows: positions of these images in the whole batch, of which other processes may have others.
        """
        draw = random.Random(seed)
        kinds = [(mix, alpha) for mix, alpha in ((_mixup, self.mixup), (_cutmix, self.cutmix)) if alpha]
        if kinds and draw.random() < self.share:
            mix, alpha = kinds[draw.randrange(len(kinds))]
            images, left = mix(batch.images, draw.betavariate(alpha, alpha), draw)
            batch = replace(_labelled(batch, left, self.classes), images=images)
        if self.erase:
            batch = replace(batch, images=_erased(batch.images, self.erase, draw, rows))
        return batch


def _mixup(images: Tensor, share: float, _draw: random.Random) -> tuple[Tensor, float]:
    return images * share + images.roll(1, 0) * (1 - share), share


def _cutmix(images: Tensor, share: float, draw: random.Random) -> tuple[Tensor, float]:
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    top, bottom = _span(draw.randrange(height), side * height, height)
    left, right = _span(draw.randrange(width), side * width, width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _span(centre: int, length: float, most: int) -> tuple[int, int]:
    start = centre - int(length) // 2
    return max(start, 0), min(start + int(length), most)


def _labelled(batch: Batch, left: float, classes: int) -> Batch:
    """With soft labels; labels and index are those of the image that has the larger share of the class, or of the picture."""
    other = batch.index.roll(1)
    if not len(batch.labels):
        return batch if left >= 0.5 else replace(batch, index=other)
    own = F.one_hot(batch.labels, classes).float()
    soft = own * left + own.roll(1, 0) * (1 - left)
    # Where both are of one class, its share is 1 whoever gave more of the picture.
    index = batch.index if left >= 0.5 else other
    labels = batch.labels if left >= 0.5 else batch.labels.roll(1)
    return replace(batch, labels=labels, index=index, soft=soft)


def _erased(images: Tensor, share: float, draw: random.Random, rows: list[int]) -> Tensor:
    """Rectangles of zeros, the mean of normalised images."""
    height, width = images.shape[2:]
    spans = [_rectangle(draw, share, height, width) for _ in range(max(rows) + 1)]
    edges = torch.tensor([spans[row] for row in rows], device="cpu").T.to(images.device, non_blocking=True)
    top, bottom, left, right = (edge.view(-1, 1) for edge in edges)
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside = ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
    return images.masked_fill(inside.unsqueeze(1), 0.0)


def _rectangle(draw: random.Random, share: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right; always as many draws, so that one image's do not move another's."""
    chosen, area, aspect, y, x = (draw.random() for _ in range(5))
    if chosen >= share:
        return 0, 0, 0, 0
    size = (_AREA[0] + area * (_AREA[1] - _AREA[0])) * height * width
    ratio = math.exp(math.log(_ASPECT[0]) + aspect * (math.log(_ASPECT[1]) - math.log(_ASPECT[0])))
    tall, wide = min(height, round(math.sqrt(size * ratio))), min(width, round(math.sqrt(size / ratio)))
    top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
    return top, top + tall, left, left + wide
