"""Options of `coco`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl import Options, PathOption

SCALE_RANGE, MIN_VISIBLE = [0.8, 1.25], 0.2
IMAGE_SIZE = 640
SHORT_SIDES, LONG_SIDE = [640, 672, 704, 736, 768, 800], 1333

_Side = Annotated[int, Field(ge=32, le=4096)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class CocoOptions(Options):
    """Options of `coco`."""

    root: PathOption = Path("data/coco")
    """Folder of the data set. All other paths are below it."""
    format: Literal["coco", "yolo"] = "coco"
    """`coco`: a JSON file for each split. `yolo`: a text file for each image, in a folder `labels` beside the folder `images`."""
    train: str | None = None
    """coco: annotation file of the training images; yolo: folder of the images. By default the first usual place where there is one. Empty,
    with `unlabelled`: no training image has a label."""
    val: str | None = None
    """The same for validation. Empty leaves it out."""
    test: str | None = None
    """The same for the test. Empty leaves it out."""
    train_images: str | None = None
    """coco: folder of the training images; by default the one that belongs to the annotation file."""
    val_images: str | None = None
    """coco: the same for validation."""
    test_images: str | None = None
    """coco: the same for the test."""
    unlabelled: PathOption | None = None
    """A folder with more images, without labels, at any depth, a path of its own: a share of each batch, from which methods learn that read
    no labels, such as `pseudo`. An epoch goes once through the labelled images, and takes as many of the others as belong to them, in
    turn."""
    unlabelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of each batch that comes from `unlabelled`; by default half."""
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training images that is carved out, by seed, where nothing is there for validation; 0 means none."""
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """Names of the classes that are to be found; boxes of others are background. By default all."""
    image_size: _Side = IMAGE_SIZE
    """square: side length in pixels of what the network sees: a square in which the whole image lies, its long side this long."""
    resize: Literal["square", "sides"] = "square"
    """`square`: every image lies in a square of `image_size`. `sides`: images have the short and long sides that torchvision's and
    Detectron2's detectors train with, and a batch is padded to its largest image."""
    short_sides: Annotated[list[_Side], Field(min_length=1)] | None = None
    """sides: lengths of the short side in pixels, one of which is drawn for each training view; evaluations take the last. By default 640,
    672, 704, 736, 768 and 800."""
    long_side: _Side | None = None
    """sides: the long side is at most so many pixels, and the short one then shorter; by default 1333."""
    aspect_batches: bool | None = None
    """sides: a training batch has images that are all wider than high, or none, so that less is padded; by default true."""
    augment: Literal["none", "flip", "jitter"] = "flip"
    """In training. `flip`: mirrored with probability 1/2; `jitter`: also larger or smaller, in another place, in other colours."""
    scale_range: Annotated[list[Annotated[float, Field(ge=0.05, le=8)]], Field(min_length=2, max_length=2)] | None = None
    """jitter: by which factors images are made smaller and larger; by default 0.8 and 1.25. 0.1 and 2 are those of long trainings."""
    min_visible: Annotated[float, Field(ge=0, lt=1)] | None = None
    """jitter: a box of which a smaller share than this lies in the view is left out there; by default 0.2."""
    mean: Annotated[list[_Share], Field(min_length=3, max_length=3)] = [0.485, 0.456, 0.406]
    """Mean of red, green and blue, for images scaled to [0, 1], and the colour beside the image; the default is ImageNet's."""
    std: Annotated[list[_Share], Field(min_length=3, max_length=3)] = [0.229, 0.224, 0.225]
    """Standard deviation of red, green and blue; the default is ImageNet's."""
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
    def _effective(self) -> CocoOptions:
        for name in ("scale_range", "min_visible"):
            if getattr(self, name) is not None and self.augment != "jitter":
                raise ValueError(f'`{name}` has no effect with `augment = "{self.augment}"`')
        sides = self.resize == "sides"
        for name in ("short_sides", "long_side", "aspect_batches"):
            if getattr(self, name) is not None and not sides:
                raise ValueError(f'`{name}` has no effect with `resize = "square"`')
        if sides and self.image_size != IMAGE_SIZE:
            raise ValueError('`image_size` has no effect with `resize = "sides"`: `short_sides` and `long_side` are the sizes')
        if sides and self.augment == "jitter":
            raise ValueError('`augment = "jitter"` cuts squares, and `resize = "sides"` has none: take `flip` or `none`')
        if sides and max(self.short_sides or SHORT_SIDES) > (self.long_side or LONG_SIDE):
            raise ValueError("`long_side` must be at least the largest of `short_sides`")
        if self.scale_range is not None and self.scale_range[0] > self.scale_range[1]:
            raise ValueError("`scale_range` is the smallest factor and the largest")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` names a class twice")
        if self.unlabelled is None and self.unlabelled_share is not None:
            raise ValueError("`unlabelled_share` has no effect without `unlabelled`")
        if self.train == "" and self.unlabelled is None:
            raise ValueError("`train` is empty, and without `unlabelled` there is nothing to learn from")
        if self.train == "" and self.unlabelled_share is not None:
            raise ValueError('`unlabelled_share` has no effect with `train = ""`: no image has a label')
        if self.format == "yolo" and (name := next((n for n in ("train_images", "val_images", "test_images") if getattr(self, n)), "")):
            raise ValueError(f'`{name}` has no effect with `format = "yolo"`: `{name.removesuffix("_images")}` is the folder of the images')
        return self
