"""Options of `cifar10` and `cifar100`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, PathOption


class CIFAROptions(Options):
    """What both data sets have."""

    root: PathOption
    """Folder with torchvision's files or with images `train/<class>/*.png` and `test/<class>/*.png`, or torchvision's `.tar.gz`."""
    download: bool = False
    """Download torchvision's files into `root` if nothing is there."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of every class's training images that becomes the validation split, chosen by seed; with 0 the best epoch is the last."""
    augment: Literal["crop_flip", "none"] = "crop_flip"
    """In training: random crop after 4 pixels of zero padding and random horizontal flip, or nothing."""


class CIFAR10Options(CIFAROptions):
    """Options of `cifar10`."""

    root: PathOption = Path("data/cifar10")
    """Folder with torchvision's files or with images `train/<class>/*.png` and `test/<class>/*.png`, or torchvision's `.tar.gz`."""


class CIFAR100Options(CIFAROptions):
    """Options of `cifar100`."""

    root: PathOption = Path("data/cifar100")
    """Folder with torchvision's files or with images `train/<class>/*.png` and `test/<class>/*.png`, or torchvision's `.tar.gz`."""
