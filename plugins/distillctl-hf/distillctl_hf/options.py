"""Options of `hf`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl import FileAugment, Options, PathOption, check_image_sizes

ROOT = Path("data/hf")
VAL_FRACTION = 0.1
Channel = Annotated[float, Field(gt=0, lt=1)]


class HFOptions(Options):
    """Options of `hf`."""

    root: PathOption = ROOT
    """Folder that `save_to_disk` wrote, or with Parquet or Arrow files, or with images as Hugging Face's `imagefolder` reads them."""
    hub: Annotated[str, Field(pattern=r"^(\w[\w.-]*(/\w[\w.-]*)?)?$")] = ""
    """Name of a data set of the hub (`OWNER/NAME`), which is then read in place of `root`."""
    download: bool = False
    """Fetch what is not in the cache from the hub; without it nothing is asked of a network."""
    config: str = ""
    """Which of the configurations that the data set has; empty for its only or default one."""
    train: Annotated[str, Field(min_length=1)] = "train"
    """Split of the training images."""
    val: str | None = None
    """Split of the validation images; by default one called `validation`, `valid`, `val` or `dev`. Empty leaves it out."""
    test: str | None = None
    """Split of the test images; by default the one called `test`. Empty leaves it out."""
    image: str = ""
    """Column of the images, where there are several."""
    label: str = ""
    """Column of the labels, where there are several."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = VAL_FRACTION
    """Share of every class that is carved out of the training images where there is no validation split; 0 means none."""
    family: Literal["", "cifar10", "cifar100", "imagenet"] = ""
    """Methods take the defaults that their papers have for these data."""
    image_size: Annotated[int, Field(ge=8, le=4096)] = 224
    """Side length in pixels of what the network sees."""
    augment: FileAugment = "random_resized_crop"
    """How training images are cut and changed."""
    resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before a random crop; 0 means 8/7 of `image_size` (256 for 224)."""
    eval_resize: Annotated[int, Field(ge=0, le=8192)] = 0
    """Length in pixels of the short side before the centre crop of an evaluation; 0 means 8/7 of `image_size`."""
    mean: Annotated[list[Channel], Field(min_length=3, max_length=3)] = [0.485, 0.456, 0.406]
    """Mean of red, green and blue, for images scaled to [0, 1]; the default is ImageNet's."""
    std: Annotated[list[Channel], Field(min_length=3, max_length=3)] = [0.229, 0.224, 0.225]
    """Standard deviation of red, green and blue; the default is ImageNet's."""
    max_megapixels: Annotated[float, Field(gt=0)] | None = None
    """The most pixels that an image may have, in millions; by default 128. One with more is refused before it is decoded."""
    white: Annotated[float, Field(gt=0)] | None = None
    """Value of white in grey images of more than 8 bits (255, 4095, 65535). By default it is measured before training: the smallest of 255,
    1023, 4095, 16383, 65535 and 2147483647, or 1 for floating point, that holds the largest value of the training images."""
    background: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] | None = None
    """Red, green and blue behind transparent pixels, from 0 to 255; by default white."""

    @model_validator(mode="after")
    def _fit(self) -> HFOptions:
        if self.hub and self.root != ROOT:
            raise ValueError("`root` and `hub` cannot both be given: one is a folder, the other a data set of the hub")
        if self.download and not self.hub:
            raise ValueError("`download` has no effect without `hub`")
        check_image_sizes(self.image_size, self.augment, self.resize, self.eval_resize)
        return self
