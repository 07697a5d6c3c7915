"""Options of `imagenet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from distillctl import FileAugment, Options, PathOption, check_image_sizes


class ImageNetOptions(Options):
    """Options of `imagenet`."""

    root: PathOption = Path("data/imagenet")
    """Folder with `train` and `val`, or Kaggle's with `ILSVRC/Data/CLS-LOC`."""
    val_labels: PathOption | None = None
    """File that says what the images of a flat `val` show. By default one with a usual name is looked for beside the images."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of every class's training images that is carved out for validation, by seed; with 0 the best epoch is the last."""
    image_size: Annotated[int, Field(ge=8, le=4096)] = 224
    """Side length in pixels of what the network sees."""
    augment: FileAugment = "random_resized_crop"
    """How training images are cut and changed."""
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before a random crop; 0 means 8/7 of `image_size` (256 for 224)."""
    eval_resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before the centre crop of an evaluation; 0 means 8/7 of `image_size`."""

    @model_validator(mode="after")
    def _sizes(self) -> ImageNetOptions:
        check_image_sizes(self.image_size, self.augment, self.resize, self.eval_resize)
        return self
