"""One canvas: every image lies whole in a square of the same size, so that what a network computes for it depends on no other image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl import DataError

Boxes = dict[str, Tensor]
"""A target; see `Canvas`."""
_GREY = (124, 116, 104)  # ImageNet's mean, which a network that was trained on it sees as zero


class Canvas:
    """Views of images with boxes; what `distillctl.Splits` takes as `joint`.

    In evaluation an image is resized so that its long side is `size`, with its aspect ratio, and lies in the upper left corner of a
    square. In training it is, by `augment`: `none`, the same; `flip`, mirrored with probability 1/2; `jitter`, mirrored, made larger or
    smaller by a factor from `scale_range` and then cut or padded back to `size` (Ghiasi et al. 2021, arXiv 2012.07177), and distorted in
    its colours as SSD does it (Liu et al. 2016, arXiv 1512.02325).

    It takes targets with `boxes`, `labels`, `crowd`, `area`, `image_id` and `size` (see `distillctl_coco.targets.BoxTargets`) and gives
    them with boxes in pixels of the view, and with `scale` and `offset` (float32, (2,), in x and y): a point of the picture times
    `scale`, plus `offset`, is a point of the view. In mirrored views the scale in x is negative. `size` and `area` stay those of the
    picture.

    In training boxes are cut to what is seen of the picture, and left out if less than 1 pixel of width or height is left, or less than
    `min_visible` of what the picture has of them. In evaluation they are as the annotation has them.

    size: side length in pixels. fill: red, green and blue beside the image, 0 … 255.
    """

    def __init__(
        self,
        size: int,
        augment: str = "none",
        scale_range: Sequence[float] = (0.8, 1.25),
        min_visible: float = 0.2,
        fill: Sequence[int] = _GREY,
    ) -> None:
        self.size, self.augment, self.scale_range, self.min_visible = size, augment, tuple(scale_range), min_visible
        self.fill = torch.tensor(list(fill), dtype=torch.uint8)
        self._colours = v2.RandomPhotometricDistort()

    def training(self, image: Tensor, target: Boxes) -> tuple[Tensor, Boxes]:
        """A view at random. image: uint8, (3, H, W).

        Raises:
            distillctl.DataError: the picture has another size than its annotation says.
        """
        target = _in_pixels(image, target)
        factor = 1.0
        if self.augment == "jitter":
            low, high = self.scale_range
            factor = low + (high - low) * float(torch.rand(()))
        mirrored = self.augment != "none" and bool(torch.rand(()) < 0.5)
        image, scale = self._resized(image, factor)
        height, width = image.shape[1:]
        top, left = (int(torch.randint(max(0, side - self.size) + 1, ())) for side in (height, width))
        if mirrored:
            image = image.flip(-1)
        image = image[:, top : top + self.size, left : left + self.size]
        if self.augment == "jitter":
            image = self._colours(image)
        offset = torch.tensor([width - left if mirrored else -left, -top], dtype=torch.float32)
        scale = scale * torch.tensor([-1.0 if mirrored else 1.0, 1.0])
        return self._padded(image), self._visible(_placed(target, scale, offset), image.shape[1:])

    def evaluation(self, image: Tensor, target: Boxes) -> tuple[Tensor, Boxes]:
        """The same without chance."""
        target = _in_pixels(image, target)
        image, scale = self._resized(image, 1.0)
        return self._padded(image), _placed(target, scale, torch.zeros(2))

    def _resized(self, image: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """The image, its long side `factor` times the canvas; and its scale in x and y, which rounding makes differ."""
        height, width = image.shape[1:]
        factor *= self.size / max(height, width)
        sides = [max(1, round(height * factor)), max(1, round(width * factor))]
        resized: Tensor = v2.functional.resize(image, sides, antialias=True)
        return resized, torch.tensor([sides[1] / width, sides[0] / height], dtype=torch.float32)

    def _padded(self, image: Tensor) -> Tensor:
        view = self.fill.repeat(self.size, self.size, 1).permute(2, 0, 1)
        view[:, : image.shape[1], : image.shape[2]] = image
        return view

    def _visible(self, target: Boxes, sides: Sequence[int]) -> Boxes:
        """Boxes cut to what is seen; those of which too little is left are not there. sides: height and width of what is seen."""
        scale, offset = target["scale"], target["offset"]
        corners = torch.stack([offset, target["size"].flip(0) * scale + offset])  # of the picture
        low, high = corners.min(0).values, corners.max(0).values
        whole = torch.minimum(torch.maximum(target["boxes"], low.repeat(2)), high.repeat(2))
        seen = torch.minimum(whole.clamp(min=0), torch.tensor([sides[1], sides[0]] * 2))
        left_over = seen[:, 2:] - seen[:, :2]
        share = left_over.clamp(min=0).prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1).clamp(min=1e-9)
        kept = (left_over >= 1).all(1) & (share >= self.min_visible)
        rows = {key: target[key][kept] for key in ("labels", "crowd", "area")}
        return {**target, **rows, "boxes": seen[kept]}


def to_picture(boxes: Tensor, target: Boxes) -> Tensor:
    """Boxes of an unmirrored view in pixels of the picture, float64: (v − offset) / scale."""
    scale, offset = (target[key].double().repeat(2).to(boxes.device) for key in ("scale", "offset"))
    return (boxes.double() - offset) / scale


def _placed(target: Boxes, scale: Tensor, offset: Tensor) -> Boxes:
    boxes = (target["boxes"].double() * scale.double().repeat(2) + offset.double().repeat(2)).float()
    if scale[0] < 0:
        boxes = boxes[:, [2, 1, 0, 3]]
    return {**target, "boxes": boxes, "scale": scale, "offset": offset}


def _in_pixels(image: Tensor, target: Boxes) -> Boxes:
    """A target in pixels of its picture, of which the size is then known."""
    height, width = image.shape[1:]
    size = torch.tensor([height, width])
    if target["size"].tolist() == [1, 1]:
        boxes = target["boxes"] * torch.tensor([width, height] * 2)
        return {**target, "boxes": boxes, "area": target["area"] * (height * width), "size": size}
    if not torch.equal(target["size"], size):
        stated = "×".join(map(str, target["size"].flip(0).tolist()))
        raise DataError(
            f"image {int(target['image_id'])} has {width}×{height} pixels when it stands upright, and its annotation says {stated}",
            hint="an image that was resized or turned needs other boxes",
        )
    return target
