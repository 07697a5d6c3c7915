"""Options of `tiny-imagenet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from distillctl import FileAugment, Options, PathOption, check_image_sizes

VAL_FRACTION = 0.1


class TinyImageNetOptions(Options):
    """Options of `tiny-imagenet`."""

    root: PathOption = Path("data/tiny-imagenet-200")
    """The unpacked folder (with `train`, `val` and `wnids.txt`), the folder above it, or the `.zip` as it is downloaded."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = VAL_FRACTION
    """Share of every class's training images that is carved out for validation, by seed; 0 means none, and the best epoch is the last."""
    image_size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side length in pixels of what the network sees."""
    augment: FileAugment = "crop_flip"
    """How training images are cut and changed, before they are rotated."""
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before a random crop; 0 means `image_size`, which leaves the crop no choice, as published."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 20.0
    """Training images are turned by an angle drawn from ± so many degrees; corners without a pixel are black."""

    @model_validator(mode="after")
    def _sizes(self) -> TinyImageNetOptions:
        check_image_sizes(self.image_size, self.augment, self.resize, 0)
        return self
