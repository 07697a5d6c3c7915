"""The right loader for a kind of images, and what must fit before one is built."""

from __future__ import annotations

from typing import get_args

import torch

from distillctl.api.data import ArrayAugment, ArrayImages, Images, Splits, View
from distillctl.api.options import FileAugment
from distillctl.data.batches import EvalLoader, TrainLoader, Tta, Workers
from distillctl.data.order import WHOLE, Share
from distillctl.errors import DataError, PluginError, ProfileError

CROPS = ("five_crop", "ten_crop")
"""Test-time augmentation that cuts several views out of what lies around the crop, too."""
_CROPS = ("resize_crop", "crop_flip", "autoaugment", "randaugment")


def train_loader(
    splits: Splits,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    workers: Workers,
    channels_last: bool = False,
    share: Share = WHOLE,
    balanced: bool = False,
) -> TrainLoader:
    """A loader of the training split: normalised float32 images on the device.

    Args:
        splits: the data set.
        batch_size: images in a batch, of all processes together.
        seed: of order and augmentation.
        device: where batches are wanted.
        workers: processes that decode files; images in memory need none.
        channels_last: memory format of the images.
        share: which rows of each batch this process takes.
        balanced: draw each class equally often in an epoch of the same length (`balanced_order`); the images must have labels.

    Raises:
        DataError: there are no training images.
        ProfileError: the view cannot be cut from these images, or a batch among the processes.
    """
    if len(splits.train) == 0:
        raise DataError("there are no training images")
    if share.processes > 1 and min(batch_size, len(splits.train)) < 2 * share.processes:
        raise ProfileError(
            f"a batch of {min(batch_size, len(splits.train))} images cannot be cut among {share.processes} processes",
            hint="`train.batch_size` is that of all processes together, and each needs two images",
        )
    _check_view(splits, splits.train)
    if getattr(splits.train, "groups", None) is not None and (balanced or splits.unlabelled_share):
        raise ProfileError(
            "batches of this data set have images of one group, and neither a sampler nor a share of images without labels goes with that"
        )
    if isinstance(splits.train, ArrayImages):
        if splits.unlabelled_share:
            raise ProfileError("images in memory are either all labelled or all without a label")
        from distillctl.data.resident import ResidentTrainLoader

        return ResidentTrainLoader(
            splits, batch_size=batch_size, seed=seed, device=device, channels_last=channels_last, share=share, balanced=balanced
        )
    from distillctl.data.stream import StreamTrainLoader

    return StreamTrainLoader(
        splits,
        batch_size=batch_size,
        seed=seed,
        device=device,
        workers=workers,
        channels_last=channels_last,
        share=share,
        balanced=balanced,
    )


def eval_loader(
    splits: Splits,
    images: Images,
    *,
    batch_size: int,
    device: torch.device,
    workers: Workers,
    tta: Tta = "",
    tta_resize: int = 0,
    channels_last: bool = False,
    share: Share = WHOLE,
) -> EvalLoader:
    """A loader of one split in its own order, seen as in evaluation.

    Args:
        splits: the data set.
        images: one of its splits; `Batch.index` counts its images.
        batch_size: images in a batch; with test-time augmentation each brings several views.
        device: where batches are wanted.
        workers: processes that decode files.
        tta: empty, `flip` (2 views), `five_crop` or `ten_crop` (5 and 10 views, for files).
        tta_resize: length of the short side before the crops; 0 means 1.1 times the crop.
        channels_last: memory format of the images.
        share: this process takes every so many-th batch.

    Raises:
        ProfileError: the view cannot be cut from these images.
    """
    _check_view(splits, images)
    if isinstance(images, ArrayImages):
        from distillctl.data.resident import ResidentEvalLoader

        if tta in CROPS:
            hint = "use `flip` or `multi_scale`" if splits.view.mirrored else "use `multi_scale`"
            raise ProfileError(f"`{tta}` needs image files: images in memory have no pixels around the crop", hint=hint)
        return ResidentEvalLoader(splits, images, batch_size=batch_size, device=device, tta=tta, channels_last=channels_last, share=share)
    from distillctl.data.stream import StreamEvalLoader

    if tta in CROPS and splits.joint is not None:
        raise ProfileError(f"`{tta}` cuts crops, and the views of this data set are cut together with their targets", hint="leave it out")
    if tta in CROPS and 0 < tta_resize < splits.view.size:
        raise ProfileError(f"`evaluate.tta_resize` must be at least the crop's {splits.view.size} pixels, not {tta_resize}")
    return StreamEvalLoader(
        splits,
        images,
        batch_size=batch_size,
        device=device,
        workers=workers,
        tta=tta,
        tta_resize=tta_resize,
        channels_last=channels_last,
        share=share,
    )


def _check_view(splits: Splits, images: Images) -> None:
    view = splits.view
    if splits.joint is not None:
        _check_joint(view, images)
    if view.largest is not None and not hasattr(splits.joint, "extent"):
        raise PluginError("the view has a `largest` batch, and nothing that cuts views of unequal sizes (`UnequalViews`)")
    if isinstance(images, ArrayImages):
        if view.augment not in get_args(ArrayAugment):
            raise ProfileError(f"images in memory can be augmented by `none` or `crop_flip`, not by `{view.augment}`")
        if view.rotation:
            raise ProfileError("images in memory are not rotated", hint="leave `rotation` out")
        short = min(images.images.shape[1:3])
        if view.augment == "crop_flip" and short + 2 * view.padding < view.size:
            raise ProfileError(f"a crop of {view.size} pixels does not fit into images of {short} with a padding of {view.padding}")
        return
    if view.augment not in get_args(FileAugment):
        raise ProfileError(f"image files cannot be augmented by `{view.augment}`", hint=f"one of {', '.join(get_args(FileAugment))}")
    if view.cache != "none" and view.augment not in ("none", *_CROPS):
        raise ProfileError(
            f'`cache = "{view.cache}"` keeps resized images, and `augment = "{view.augment}"` cuts at random from images of full size',
            hint="`crop_flip`, `resize_crop`, `autoaugment`, `randaugment` and `none` resize first",
        )
    if splits.channels != 3:
        raise ProfileError(f"image files have 3 channels, but `mean` has {splits.channels} values")
    if view.augment in _CROPS and 0 < view.resize < view.size:
        raise ProfileError(f"`resize` must be at least the crop's {view.size} pixels, not {view.resize}")
    if 0 < view.eval_resize < view.size:
        raise ProfileError(f"`eval_resize` must be at least the crop's {view.size} pixels, not {view.eval_resize}")


def _check_joint(view: View, images: Images) -> None:
    """Whether these images can be cut together with their targets."""
    if isinstance(images, ArrayImages):
        raise ProfileError("images in memory are not cut together with their targets: that is done with image files")
    if images.targets is None and len(images):
        raise PluginError("the data set cuts its views together with their targets, and has no targets")
    if view.cache != "none":
        raise ProfileError(
            f'`cache = "{view.cache}"` keeps images that were resized alone, and this data set cuts them together with their targets',
            hint="leave it out",
        )
