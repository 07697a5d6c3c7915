"""Views of unequal sizes: short and long side as torchvision's and Detectron2's detectors are trained with, padded to the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl import size_between
from distillctl_coco.views import Boxes, _in_pixels, _placed

STRIDE = 32
"""Batches have heights and widths that are multiples of this."""


class Sides:
    """Views of images with boxes that keep their aspect ratio; what `distillctl.Splits` takes as `joint` (`distillctl.UnequalViews`).

    The short side of an image becomes one of `short_sides`, drawn in training and the last in evaluation, unless the long side would be
    longer than `long_side`: then that becomes `long_side`. Sizes are rounded down, as torchvision's `GeneralizedRCNNTransform` does
    (Detectron2 rounds to the nearest, which may be a pixel more). With `mirrored`, training shows half of the views mirrored.

    Takes targets as `Canvas` does and gives them as it does, and with `view`: int64, (2,), height and width of the view without what the
    batch is padded with. In training boxes are cut to the picture, and left out where less than a pixel is left.
    """

    def __init__(self, short_sides: Sequence[int], long_side: int, *, mirrored: bool) -> None:
        self.short_sides, self.long_side, self.mirrored = tuple(short_sides), long_side, mirrored

    def training(self, image: Tensor, target: Boxes) -> tuple[Tensor, Boxes]:
        """A view at random. image: uint8, (3, H, W).

        Raises:
            distillctl.DataError: the picture has another size than its annotation says.
        """
        view, target = self._cut(image, _in_pixels(image, target), self._drawn())
        height, width = view.shape[1:]
        if self.mirrored and bool(torch.rand(()) < 0.5):
            view = view.flip(-1)
            scale = target["scale"] * torch.tensor([-1.0, 1.0])
            boxes = target["boxes"] * torch.tensor([-1.0, 1.0] * 2) + torch.tensor([float(width), 0.0] * 2)
            target |= {"boxes": boxes[:, [2, 1, 0, 3]], "scale": scale, "offset": torch.tensor([float(width), 0.0])}
        seen = torch.minimum(target["boxes"].clamp(min=0), torch.tensor([width, height] * 2))
        kept = (seen[:, 2:] - seen[:, :2] >= 1).all(1)
        return view, {**target, **{key: target[key][kept] for key in ("labels", "crowd", "area")}, "boxes": seen[kept]}

    def evaluation(self, image: Tensor, target: Boxes) -> tuple[Tensor, Boxes]:
        """The same without chance; boxes are as the annotation has them."""
        return self._cut(image, _in_pixels(image, target), self.short_sides[-1])

    def extent(self, target: Boxes) -> tuple[int, int]:
        """Height and width of the view that `training` would give, by the size that the annotation states."""
        return self.sides(*target["size"].tolist(), short=self._drawn())

    def sides(self, height: int, width: int, *, short: int) -> tuple[int, int]:
        """Height and width of the view of a picture."""
        return size_between(height, width, short=short, long=self.long_side)

    def largest(self, *, sorted_by_shape: bool) -> tuple[int, int]:
        """Height and width of the largest batch, lying; a square where wide and tall images come together."""
        short, long = (math.ceil(side / STRIDE) * STRIDE for side in (max(self.short_sides), self.long_side))
        return (min(short, long) if sorted_by_shape else long), long

    def _drawn(self) -> int:
        """The first draw of a view, so that `extent` has it too."""
        return self.short_sides[int(torch.randint(len(self.short_sides), ()))]

    def _cut(self, image: Tensor, target: Boxes, short: int) -> tuple[Tensor, Boxes]:
        height, width = image.shape[1:]
        sides = self.sides(height, width, short=short)
        view: Tensor = v2.functional.resize(image, list(sides), antialias=True)
        scale = torch.tensor([sides[1] / width, sides[0] / height], dtype=torch.float32)
        return view, {**_placed(target, scale, torch.zeros(2)), "view": torch.tensor(sides)}


def wide(sizes: Tensor) -> Tensor:
    """A number for each picture, 1 for those that are wider than high: int64, (N,). sizes: int64, (N, 2), heights and widths."""
    return (sizes[:, 1] > sizes[:, 0]).long()
