"""What a data set gives to the engine: splits, and how an image becomes a view of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distillctl.errors import DataError

ArrayAugment = Literal["none", "crop_flip"]
FileAugment = Literal["none", "resize_crop", "crop_flip", "random_resized_crop", "autoaugment", "randaugment"]


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size, kept in memory and, where they fit, on the device.

    images: uint8, (N, H, W, C) with C = 1 or 3.
    labels: int64, (N,).
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise DataError(f"images must be uint8 of shape (N, H, W, 1 or 3), not {self.images.dtype} {tuple(self.images.shape)}")
        _check_labels(self.labels, len(self.images))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> ArrayImages:
        """The images at these positions, in this order."""
        return ArrayImages(self.images[index], self.labels[index])


@dataclass(frozen=True)
class FileImages:
    """Image files that are decoded when they are needed.

    paths: N files that Pillow or torchvision can decode.
    labels: int64, (N,).
    """

    paths: Sequence[Path]
    labels: Tensor

    def __post_init__(self) -> None:
        _check_labels(self.labels, len(self.paths))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> FileImages:
        """The files at these positions, in this order."""
        return FileImages([self.paths[i] for i in index.tolist()], self.labels[index])


Images = ArrayImages | FileImages


def _check_labels(labels: Tensor, count: int) -> None:
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise DataError(f"labels must be int64 of shape ({count},), not {labels.dtype} {tuple(labels.shape)}")


@dataclass(frozen=True)
class View:
    """How an image is cut, in training and in evaluation.

    size: side length in pixels of what the network sees.
    augment: in training. Arrays: `none` or `crop_flip` (zero padding, random crop, horizontal flip). Files: see
        `distillctl.data.augment`.
    padding: pixels of zeros around an array image before the random crop.
    resize: length of the short side to which files are resized before a crop in training; 0 means `size`.
    eval_resize: the same in evaluation, before the centre crop; 0 means `size`.
    """

    size: int
    augment: FileAugment = "none"
    padding: int = 0
    resize: int = 0
    eval_resize: int = 0


@dataclass(frozen=True)
class Splits:
    """A data set, ready to use.

    train, val, test: `val` and `test` may be missing; the validation split chooses the best epoch, the test split never does.
    classes: names, sorted in the order of the labels.
    mean, std: one number a channel, for images scaled to [0, 1].
    description: one line on where the images and the splits come from, kept in the run directory.
    """

    train: Images
    val: Images | None
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view: View
    description: str = ""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        return len(self.mean)
