"""What a data set gives to the engine: splits, and how an image becomes a view of itself."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import torch
from torch import Tensor

from distillctl.api.options import FileAugment, FileCache
from distillctl.errors import DataError
from distillctl.text import some

NO_LABELS = torch.empty(0, dtype=torch.int64)
"""Of images without labels."""
NO_LABEL = -1
"""Of an image without a label among labelled ones."""
MAX_MEGAPIXELS = 128
"""The most pixels of an image file where nothing else is said, in millions: 108 of a phone, 121 of a satellite's tile."""

ArrayAugment = Literal["none", "crop_flip"]


class LazyTargets(Sequence[Any]):
    """Targets that are made when they are asked for, so that of a hundred thousand there are a few tensors and no list of objects.

    It is pickled where processes that decode are spawned, and used after a fork.
    """

    @abstractmethod
    def subset(self, index: Tensor) -> LazyTargets:
        """The targets of the images at these positions, in this order."""

    @abstractmethod
    def digest(self) -> str:
        """Text that stands for all of them in their order: a run that goes on is compared by it."""


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size, kept in memory and, where they fit, on the device.

    images: uint8, (N, H, W, C) with C = 1 or 3.
    labels: int64, (N,); empty where the task has no labels.
    targets: what else the task learns from, one for each image: a tensor (N, …), a sequence or `LazyTargets`.
    """

    images: Tensor
    labels: Tensor = NO_LABELS
    targets: Any = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise DataError(f"images must be uint8 of shape (N, H, W, 1 or 3), not {self.images.dtype} {tuple(self.images.shape)}")
        _check_targets(self.labels, self.targets, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Tensor) -> ArrayImages:
        """The images at these positions, in this order."""
        return ArrayImages(self.images[index], take_labels(self.labels, index), take_targets(self.targets, index))


@dataclass(frozen=True)
class FileImages:
    """Image files that are decoded when they are needed.

    paths: N files of the formats JPEG, PNG, BMP, GIF, WEBP, TIFF, PPM.
    labels: int64, (N,); empty where the task has no labels.
    targets: what else the task learns from, one for each image: a tensor (N, …), a sequence or `LazyTargets`.
    boxes: the part of each picture that is used: int64, (N, 4), its left, top, right and bottom edge in pixels of the upright picture, cut
        to what lies within; None means the whole.
    groups: int64, (N,): a training batch has images of one group alone, such as wide ones or tall ones; None means no groups.
    sizes: int64, (N, 2), height and width of each upright picture as the data set states them; a file of another size is refused before
        anything is trained. None where they are not stated.
    """

    paths: Sequence[Path]
    labels: Tensor = NO_LABELS
    targets: Any = None
    boxes: Tensor | None = None
    groups: Tensor | None = None
    sizes: Tensor | None = None

    def __post_init__(self) -> None:
        _check_targets(self.labels, self.targets, len(self.paths))
        _check_groups(self.groups, len(self.paths))
        if self.boxes is not None and (self.boxes.dtype != torch.int64 or self.boxes.shape != (len(self.paths), 4)):
            raise DataError(f"boxes must be int64 of shape ({len(self.paths)}, 4), not {self.boxes.dtype} {tuple(self.boxes.shape)}")
        if self.sizes is not None and (self.sizes.dtype != torch.int64 or self.sizes.shape != (len(self.paths), 2)):
            raise DataError(f"sizes must be int64 of shape ({len(self.paths)}, 2), not {self.sizes.dtype} {tuple(self.sizes.shape)}")

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, index: Tensor) -> FileImages:
        """The files at these positions, in this order."""
        paths = [self.paths[i] for i in index.tolist()]
        boxes = None if self.boxes is None else self.boxes[index]
        groups, sizes = (None if part is None else part[index] for part in (self.groups, self.sizes))
        return FileImages(paths, take_labels(self.labels, index), take_targets(self.targets, index), boxes, groups, sizes)

    @property
    def parts(self) -> list[list[int]] | None:
        """The boxes as numbers."""
        return None if self.boxes is None else self.boxes.tolist()


class ImageStore(Protocol):
    """Encoded images that lie together in larger files. It is pickled where processes that decode are spawned, and used after a fork.

    name: what messages call it; stores of different images have different names, which end in the same two parts wherever they lie.
    files: the larger files, whose sizes and times of change stand for those of the images.
    """

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> Sequence[Path]: ...

    def read(self, row: int) -> bytes:
        """The bytes of an image file in one of the formats of `FileImages`."""


@dataclass(frozen=True)
class StoredImage:
    """One image of a store, which stands where a file's path does."""

    store: ImageStore
    row: int

    def read_bytes(self) -> bytes:
        """What a file with the image would hold."""
        return self.store.read(self.row)

    def __str__(self) -> str:
        return f"{self.store.name}[{self.row}]"


class StoredPaths(Sequence[StoredImage]):
    """Images of one store, made when they are asked for: of a million there is a tensor and no list of objects.

    rows: int64, (N,).
    """

    def __init__(self, store: ImageStore, rows: Tensor) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> StoredImage: ...
    @overload
    def __getitem__(self, index: slice) -> StoredPaths: ...
    def __getitem__(self, index: int | slice) -> StoredImage | StoredPaths:
        return StoredPaths(self.store, self.rows[index]) if isinstance(index, slice) else StoredImage(self.store, int(self.rows[index]))


@dataclass(frozen=True)
class StoredImages:
    """Encoded images within larger files, such as the tables of a data set, that are decoded when they are needed.

    store: reads them.
    rows: int64, (N,): which of its images, each once.
    labels: int64, (N,); empty where the task has no labels.
    targets: what else the task learns from, one for each image: a tensor (N, …), a sequence or `LazyTargets`.
    groups: as those of `FileImages`.
    """

    store: ImageStore
    rows: Tensor
    labels: Tensor = NO_LABELS
    targets: Any = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        _check_groups(self.groups, len(self.rows))
        if self.rows.dtype != torch.int64 or self.rows.ndim != 1:
            raise DataError(f"rows must be int64 of shape (N,), not {self.rows.dtype} {tuple(self.rows.shape)}")
        _check_targets(self.labels, self.targets, len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> StoredPaths:
        """What stands for the paths of files."""
        return StoredPaths(self.store, self.rows)

    def subset(self, index: Tensor) -> StoredImages:
        """The images at these positions, in this order."""
        groups = None if self.groups is None else self.groups[index]
        return StoredImages(self.store, self.rows[index], take_labels(self.labels, index), take_targets(self.targets, index), groups)


Images = ArrayImages | FileImages | StoredImages


def take_labels(labels: Tensor, index: Tensor) -> Tensor:
    """The labels of the images at these positions; none where there are none."""
    return labels[index] if len(labels) else labels


def take_targets(targets: Any, index: Tensor) -> Any:
    """The targets of the images at these positions, in this order."""
    if isinstance(targets, LazyTargets):
        return targets.subset(index)
    if targets is None or isinstance(targets, Tensor):
        return None if targets is None else targets[index]
    return [targets[i] for i in index.tolist()]


def _check_groups(groups: Tensor | None, count: int) -> None:
    if groups is not None and (groups.dtype != torch.int64 or groups.shape != (count,)):
        raise DataError(f"groups must be int64 of shape ({count},), not {groups.dtype} {tuple(groups.shape)}")


def _check_targets(labels: Tensor, targets: Any, count: int) -> None:
    if labels.dtype != torch.int64 or labels.shape not in ((count,), (0,)):
        raise DataError(f"labels must be int64 of shape ({count},), not {labels.dtype} {tuple(labels.shape)}")
    if targets is not None and len(targets) != count:
        raise DataError(f"there are {len(targets)} targets for {count} images")


@dataclass(frozen=True)
class View:
    """How an image is cut, in training and in evaluation.

    size: side length in pixels of what the network sees.
    augment: in training. Arrays: `none` or `crop_flip` (zero padding, random crop, horizontal flip). Files: see
        `distillctl.data.augment`.
    padding: pixels of zeros around an array image before the random crop.
    resize: length of the short side to which files are resized before a crop in training; 0 means `size`.
    eval_resize: the same in evaluation, before the centre crop; 0 means `size`.
    rotation: files are turned in training, once they are cut, by an angle drawn from ± so many degrees; corners without a pixel are black.
    cache: where files are kept as they are after the resize: `none`, `ram` or `disk` (see `distillctl.data.resized`).
    max_megapixels: a file with more pixels, in millions, is refused before it is decoded; None means `MAX_MEGAPIXELS`.
    white: value of white in files of grey with more than 8 bits; None: a training measures it (see `distillctl.data.inspection`).
    background: red, green and blue behind transparent pixels of files; None means white.
    canvas: red, green and blue of the square in whose upper left corner an evaluation with `Splits.joint` lays the whole picture, its long
        side as long as the square's. A deployed student then sees pictures so; otherwise the centre is cut out.
    largest: height and width of the largest batch where `Splits.joint` gives views of unequal sizes (`UnequalViews`); None where all are
        squares of `size`.
    multiple: with `largest`, the height and the width of a batch are multiples of so many pixels.
    long_side: with `largest`: in evaluation the short side of a picture becomes `size`, but for one whose long side would be longer than
        this, which becomes so long; both are rounded down. A deployed student then sees pictures so.
    """

    size: int
    augment: FileAugment = "none"
    padding: int = 0
    resize: int = 0
    eval_resize: int = 0
    rotation: float = 0.0
    cache: FileCache = "none"
    max_megapixels: float | None = None
    white: float | None = None
    background: Sequence[int] | None = None
    canvas: Sequence[int] | None = None
    largest: tuple[int, int] | None = None
    multiple: int = 1
    long_side: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a batch, the largest one where they differ."""
        return self.largest or (self.size, self.size)

    @property
    def reading(self) -> dict[str, Any]:
        """How files become pixels, as arguments of `distillctl.data.decode.read_image`."""
        return {"max_megapixels": self.max_megapixels, "white": self.white, "background": self.background}

    @property
    def mirrored(self) -> bool:
        """Whether training shows images mirrored, so that a model knows them."""
        return self.augment not in ("none", "resize_crop")


class JointViews(Protocol):
    """How an image and its target together become a view, where the one cannot be cut without the other (boxes, masks, points).

    It draws from torch's global CPU generator alone, which the loader seeds for each image of each epoch: results then depend neither on
    the number of workers nor on the other images of a batch. It is pickled where processes that decode are spawned.
    """

    def training(self, image: Tensor, target: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """A view at random, and what its target is.

        image: uint8, (3, H, W), upright. target: what `targets` of the images has for it, which stays as it is.

        Returns:
            The view, uint8 (3, size, size) with the `size` of `Splits.view`; and a dict of tensors on the CPU, with the same keys and
            types for all images.
        """

    def evaluation(self, image: Tensor, target: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The same without chance."""


def size_between(height: int, width: int, *, short: int, long: int) -> tuple[int, int]:
    """Height and width in pixels of a picture whose short side becomes `short`, unless the long one would be longer than `long`: then that
    becomes `long`. Rounded down, as torchvision's `GeneralizedRCNNTransform` does.
    """
    factor = min(short / min(height, width), long / max(height, width))
    return max(1, math.floor(height * factor)), max(1, math.floor(width * factor))


class UnequalViews(JointViews, Protocol):
    """Views (3, H, W) of unequal sizes, for a `View` with `largest`.

    A batch is as large as its largest view, rounded up to multiples of `View.multiple`. Each view lies in the upper left, and beside it all
    values are 0 after normalisation. Of what a network computes there, and near to it, other images of the batch decide. With several
    processes, each pads to the largest of all rows of the batch: the batch is the same one.
    """

    def extent(self, target: Any) -> tuple[int, int]:
        """Height and width of the view that `training` would give from this state of torch's generator, without the image."""


@dataclass(frozen=True)
class Splits:
    """A data set, ready to use.

    train, val, test: `val` and `test` may be missing; the validation split chooses the best epoch, the test split never does.
    classes: names, sorted in the order of the labels; empty where the task has no classes.
    class_ids: numbers of the classes in the files of the data set, in the same order; empty where they are the labels.
    mean, std: one number a channel, for images scaled to [0, 1].
    outputs: how many numbers the networks give where no classes say it; 0 where the teacher is asked.
    labelled: images with labels beside those that are learnt from, on which features are judged; their `targets`, int64, are 1 for those
        that are asked for and 0 for those that answer.
    unlabelled_share: share of each batch that are images of `train` without a label (`NO_LABEL`), from above 0 to below 1; 0 where all
        have one. An epoch goes once through those that have one.
    skipped: broken files that were left out, by split, where `on_error` is `skip`.
    joint: cuts views of files together with their targets; `Batch.targets` is then a list of dicts, and labels, where there are any, say
        no more than which images have none (`NO_LABEL`). Of `view` there only count its sizes, how files are read, whether images are
        mirrored, and its `canvas` or `long_side`, without which nobody can ask a deployed student. None: `view` says it all, and targets
        stay as they are.
    remarks: what is odd about labels or targets, in sentences, for `check-data`.
    description: one line on where the images and the splits come from, with the number of images in each, kept in the run directory.
    """

    train: Images
    val: Images | None
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view: View
    description: str = ""
    outputs: int = 0
    labelled: Images | None = None
    unlabelled_share: float = 0.0
    skipped: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    joint: JointViews | None = None
    remarks: Sequence[str] = ()
    class_ids: Sequence[int] = ()

    @property
    def overview(self) -> str:
        """The first classes and the description, which has the number of images of each split; for people."""
        return f"{self.num_classes} classes ({some(self.classes)}); {self.description}" if self.classes else self.description

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        return len(self.mean)
