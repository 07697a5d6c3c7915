"""The boxes of many images in a few tensors."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from distillctl import LazyTargets


class BoxTargets(LazyTargets):
    """Boxes of N images; the target of an image is made when it is asked for.

    A target has `boxes` (float32, (n, 4): left, top, right and bottom in pixels of the upright picture), `labels` (int64, (n,), from 0),
    `crowd` (bool, (n,)), `area` (float32, (n,), as the annotation has it), `image_id` (int64, ()) and `size` (int64, (2,), height and
    width). Where the size of a picture is not known before it is decoded, `size` is (1, 1), and boxes and areas are shares of it.

    image_ids: int64, (N,). sizes: int64, (N, 2). row_images: int64, (M,), the image to which each box belongs, 0 … N − 1.
    boxes, labels, crowd, area: of all M boxes, in any order.
    """

    def __init__(
        self, image_ids: Tensor, sizes: Tensor, row_images: Tensor, boxes: Tensor, labels: Tensor, crowd: Tensor, area: Tensor
    ) -> None:
        order = row_images.argsort(stable=True)
        self.image_ids, self.sizes = image_ids, sizes
        self.counts = torch.bincount(row_images, minlength=len(image_ids))
        self.first = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])
        self.boxes, self.labels, self.crowd, self.area = (part[order] for part in (boxes, labels, crowd, area))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.subset(torch.arange(len(self))[index])
        i = range(len(self))[index]
        rows = slice(int(self.first[i]), int(self.first[i + 1]))
        own = {"boxes": self.boxes[rows], "labels": self.labels[rows], "crowd": self.crowd[rows], "area": self.area[rows]}
        return {**own, "image_id": self.image_ids[i], "size": self.sizes[i]}

    def subset(self, index: Tensor) -> BoxTargets:
        counts = self.counts[index]
        place = torch.arange(len(index)).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        rows = torch.arange(len(place)) - before[place] + self.first[index][place]
        parts = (part[rows] for part in (self.boxes, self.labels, self.crowd, self.area))
        return BoxTargets(self.image_ids[index], self.sizes[index], place, *parts)

    def followed_by(self, other: BoxTargets) -> BoxTargets:
        """Those of these images, and then those of others."""
        places = (torch.arange(len(one)).repeat_interleave(one.counts) + before for one, before in ((self, 0), (other, len(self))))
        names = ("boxes", "labels", "crowd", "area")
        parts = (torch.cat([getattr(self, name), getattr(other, name)]) for name in names)
        return BoxTargets(
            torch.cat([self.image_ids, other.image_ids]), torch.cat([self.sizes, other.sizes]), torch.cat(list(places)), *parts
        )

    def in_pixels(self, sizes: Tensor) -> BoxTargets:
        """The same boxes where sizes become known that were not: int64, (N, 2)."""
        factor = torch.where((self.sizes == 1).all(1, keepdim=True), sizes, 1)
        place = torch.arange(len(self)).repeat_interleave(self.counts)
        boxes = self.boxes * factor[place].flip(1).repeat(1, 2)
        area = self.area * factor[place].prod(1)
        return BoxTargets(self.image_ids, sizes, place, boxes, self.labels, self.crowd, area)

    def only(self, classes: list[int]) -> BoxTargets:
        """The same images with the boxes of these labels, which are counted anew in their order."""
        number = torch.full((max([*classes, *self.labels.tolist()], default=0) + 1,), -1)
        number[classes] = torch.arange(len(classes))
        labels = number[self.labels]
        kept = labels >= 0
        place = torch.arange(len(self)).repeat_interleave(self.counts)
        return BoxTargets(self.image_ids, self.sizes, place[kept], self.boxes[kept], labels[kept], self.crowd[kept], self.area[kept])

    def digest(self) -> str:
        found = hashlib.sha256()
        for part in (self.image_ids, self.sizes, self.counts, self.boxes, self.labels, self.crowd, self.area):
            found.update(part.contiguous().numpy().data)
        return found.hexdigest()[:24]
