"""Builds the splits of `npz`, in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.builtin.npz_file import DEFAULTS, opened, read_arrays
from distillctl.builtin.npz_options import NpzOptions
from distillctl.data.splits import three_way_split
from distillctl.errors import DataError

_PADDING = 8  # the part of the side that is added around an image before a crop: 4 pixels for CIFAR's 32, as everybody has it


def build(options: NpzOptions, seed: int) -> Splits:
    """The images, split by the file or by seed; grey ones three times over, since the networks of the model zoos take three channels.

    Mean and standard deviation are those of the training part.

    Raises:
        ProfileError: there is no such file, or a fraction is asked for where an array decides.
        DataError: its arrays are not what they should be.
    """
    arrays = read_arrays(options)
    with opened(options.root) as archive:
        whole = {split: _images(archive[name], arrays.labels[split]) for split, name in arrays.images.items()}
    fractions = {name: 0.0 if name in whole else getattr(options, f"{name}_fraction") for name in DEFAULTS}
    labels = whole["train"].labels
    carved = three_way_split(labels, fractions["val"], fractions["test"], seed)
    parts = dict(zip(("train", "val", "test"), map(whole["train"].subset, carved), strict=True))
    for name, fraction in fractions.items():
        if not len(parts[name]) and fraction not in (0, DEFAULTS[name]):
            raise DataError(f"`{name}_fraction = {fraction}` is so small that no class gives an image to the {name} split")
    parts |= {name: images for name, images in whole.items() if name != "train"}
    train, side = parts["train"], arrays.shapes["train"][1]
    if len(torch.unique(train.labels)) < len(arrays.classes):
        raise DataError(f"nothing is left to train on for some classes of `{options.root}`", hint="lower `val_fraction` or `test_fraction`")
    mean, std = _statistics(train.images)
    sources = {name: "" if name in whole else " (carved by seed)" for name in parts}
    sizes = ", ".join(f"{name} {len(images)}{sources[name] if name != 'train' else ''}" for name, images in parts.items() if len(images))
    return Splits(
        train=train,
        val=parts["val"] if len(parts["val"]) else None,
        test=parts["test"] if len(parts["test"]) else None,
        classes=arrays.classes,
        mean=mean,
        std=std,
        view=View(size=side, augment=options.augment, padding=side // _PADDING if options.augment == "crop_flip" else 0),
        description=f"arrays of `{options.root}`: {sizes}",
    )


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, scaled to [0, 1]: from how often each value is there, so that nothing is copied."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.flatten(0, 2).T:
        shares = torch.bincount(channel, minlength=256).double() / len(channel)
        mean = (shares * values).sum()
        means.append(float(mean))
        deviations.append(float((shares * (values - mean).square()).sum().sqrt()))
    return tuple(means), tuple(deviations)


def _images(pixels: Any, labels: Any) -> ArrayImages:
    images = torch.from_numpy(pixels if pixels.ndim == 4 else pixels[..., None])
    return ArrayImages(images if images.shape[-1] == 3 else images.repeat(1, 1, 1, 3), torch.from_numpy(labels))
