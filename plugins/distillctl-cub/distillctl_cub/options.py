"""Options of `cub200`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl import FileAugment, FileCache, Options, PathOption, check_image_sizes

VAL_FRACTION = 0.1


class CUBOptions(Options):
    """Options of `cub200`."""

    root: PathOption = Path("data/CUB_200_2011")
    """The unpacked folder (with `images.txt` and `images`), the folder above it, or the `.tgz` as it is downloaded."""
    split: Literal["official", "seeded"] = "official"
    """`official`: 5994 images to train, 5794 to test. `seeded`: of every class a fifth for the test, of the rest a fifth for validation."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = VAL_FRACTION
    """official: share of every class's training images that is carved out for validation, by seed; 0 means none."""
    crop: Literal["box"] | None = None
    """`box`: of every image, in training and in evaluations, only the bird's box is used, as `bounding_boxes.txt` has it."""
    margin: Annotated[float, Field(ge=0, le=10)] | None = None
    """With `crop`: the box grows by this share of its width on the left and on the right, and of its height above and below, as far as
    the image goes; by default 0."""
    image_size: Annotated[int, Field(ge=8, le=4096)] = 224
    """Side length in pixels of what the network sees."""
    augment: FileAugment = "autoaugment"
    """How training images are cut and changed."""
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before a random crop; 0 means 246/224 of `image_size`."""
    eval_resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before the centre crop of an evaluation; 0 means `image_size`."""
    cache: FileCache = "none"
    """Where images are kept decoded and resized, so that an epoch decodes none: `ram` in memory, for this command; `disk` in the cache
    folder, for all. The views are the same. For an `augment` that resizes first, not `random_resized_crop`, `trivialaugment`, `augmix`."""
    max_megapixels: Annotated[float, Field(gt=0)] | None = None
    """The most pixels that an image may have, in millions; by default 128. A file with more is refused before it is decoded."""
    on_error: Literal["stop", "skip"] | None = None
    """What is done about broken image files: `stop`, the default, ends the command before anything is trained; `skip` decodes all files
    once and leaves those out, in every command that reads the same files, and counts them in the run."""
    white: Annotated[float, Field(gt=0)] | None = None
    """Value of white in grey images of more than 8 bits (255, 4095, 65535). By default it is measured before training: the smallest of 255,
    1023, 4095, 16383, 65535 and 2147483647, or 1 for floating point, that holds the largest value of the training images."""
    background: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] | None = None
    """Red, green and blue behind transparent pixels, from 0 to 255; by default white."""

    @model_validator(mode="after")
    def _effective(self) -> CUBOptions:
        if self.split == "seeded" and self.val_fraction != VAL_FRACTION:
            raise ValueError('`val_fraction` has no effect with `split = "seeded"`')
        if self.margin is not None and self.crop is None:
            raise ValueError('`margin` has no effect without `crop = "box"`')
        check_image_sizes(self.image_size, self.augment, self.resize, self.eval_resize, self.cache)
        return self
