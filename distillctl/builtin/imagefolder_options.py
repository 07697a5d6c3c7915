"""Options of `imagefolder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl.api.options import FileAugment, FileCache, Options, PathOption, check_image_sizes

Fraction = Annotated[float, Field(ge=0, lt=1)]
Channel = Annotated[float, Field(gt=0, lt=1)]
VAL_FRACTION = 0.1


class ImageFolderOptions(Options):
    """Options of `imagefolder`."""

    root: PathOption
    """Folder with `train`, `val` and `test` (in any case), each with one folder for each class; or with the class folders themselves."""
    train: str | None = None
    """Folder of the training images in `root`, such as `seg_train/seg_train`, where it is not called `train`; `.` says that the folders of
    `root` are the classes, whatever they are called."""
    val: str | None = None
    """Folder of the validation images in `root` where it is not called `val`; empty leaves out a folder that is."""
    test: str | None = None
    """Folder of the test images in `root` where it is not called `test`; empty leaves out a folder that is."""
    labels: str | Literal[False] | None = None
    """CSV file, as a path from `root`, that says which image has which label, where images do not lie in folders of classes; its first line
    names the columns `path` (from `root`, with or without its ending), `label` and, if it has one, `split`. `false`: no image has a label,
    and folders below `root`, or below its `train`, `val` and `test`, mean nothing; all is learnt from a teacher."""
    columns: Annotated[list[str], Field(min_length=2, max_length=3)] | None = None
    """How path, label and split are called in the first line of `labels`, in this order, such as `["id", "breed"]`."""
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """With `labels = false`: how many classes the networks tell apart; by default as many as the teacher."""
    labelled: PathOption | None = None
    """With `labels = false`: a folder of folders of classes, with or without train, val and test above them. Evaluations then tell how well
    the student's features tell its held-out images apart (k nearest neighbours): its test images, else its val images, else a fifth of each
    class by seed, by all others."""
    unlabelled: PathOption | None = None
    """A folder with more images, without labels, at any depth: a share of each batch, from which methods learn that read no labels. An
    epoch goes once through the labelled images, and takes as many of the others as belong to them, in turn."""
    unlabelled_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of each batch that comes from `unlabelled`; by default half."""
    class_order: Literal["natural"] | list[str] | None = None
    """Order of the classes, which number the outputs of the networks: `natural` puts `2` before `10`; a list names every class. By default
    they are sorted as text."""
    family: Literal["", "imagenet"] = ""
    """`imagenet`: methods take the defaults that their papers have for ImageNet."""
    val_fraction: Fraction = VAL_FRACTION
    """Share of every class that is carved out of the training images for validation where there is no `val` folder; 0 means none.
    Without labels all images are of one class."""
    test_fraction: Fraction = 0.0
    """Share of every class that is carved out for the test where there is no `test` folder, before the validation part; 0 means none."""
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

    @property
    def task(self) -> str:
        """Name of the task, if it is not that of the data set."""
        return "unlabelled" if self.labels is False else ""

    @model_validator(mode="after")
    def _sizes(self) -> ImageFolderOptions:
        if not self.labels and self.columns is not None:
            raise ValueError("`columns` has no effect without a file of `labels`")
        for name in ("num_classes", "labelled"):
            if self.labels is not False and getattr(self, name) is not None:
                raise ValueError(f"`{name}` has no effect without `labels = false`")
        if self.labels is False and self.unlabelled is not None:
            raise ValueError("`unlabelled` has no effect with `labels = false`: no image has a label")
        if self.unlabelled is None and self.unlabelled_share is not None:
            raise ValueError("`unlabelled_share` has no effect without `unlabelled`")
        if self.labels is False and self.class_order is not None:
            raise ValueError("`class_order` has no effect with `labels = false`: there are no classes")
        if self.labels and (stated := [name for name in ("train", "val", "test") if getattr(self, name) is not None]):
            raise ValueError(f"`{stated[0]}` has no effect with `labels`: a column `split` says which images are of which split")
        check_image_sizes(self.image_size, self.augment, self.resize, self.eval_resize, self.cache)
        return self
