"""Tiny-ImageNet as splits of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from distillctl import DataError, FileImages, Splits, View, listing_hash, stratified_split
from distillctl_tinyimagenet.listing import read_listing
from distillctl_tinyimagenet.options import VAL_FRACTION, TinyImageNetOptions
from distillctl_tinyimagenet.places import find

_MEAN, _STD = (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)  # of the training images, as published runs have them


def build(options: TinyImageNetOptions, seed: int) -> Splits:
    """The photographs: the official training images, of which `seed` chooses a validation split, and the official `val` as the test.

    Raises:
        distillctl.ProfileError: the data set is missing.
        distillctl.DataError: it is incomplete or contradicts itself.
    """
    folder = find(options.root)
    listing = read_listing(folder)
    images = _files(listing.train)
    kept, carved = stratified_split(images.labels, options.val_fraction, seed)
    if not len(carved) and options.val_fraction not in (0, VAL_FRACTION):
        raise DataError(f"`val_fraction = {options.val_fraction}` is so small that no class gives an image to the validation split")
    train, val, test = images.subset(kept), images.subset(carved), _files(listing.val)
    names = [path.relative_to(folder).as_posix() for path, _ in (*listing.train, *listing.val)]
    sizes = f"train {len(train)}, val {len(val)} (carved from train by seed), test {len(test)} (the official `val`)"
    return Splits(
        train=train,
        val=val if len(val) else None,
        test=test,
        classes=listing.classes,
        mean=_MEAN,
        std=_STD,
        view=View(
            size=options.image_size,
            augment=options.augment,
            resize=options.resize or options.image_size,
            eval_resize=options.image_size,
            rotation=options.rotation,
        ),
        description=f"Tiny-ImageNet in `{folder}`: {sizes}; listing {listing_hash(names)}",
    )


def _files(pairs: Sequence[tuple[Path, int]]) -> FileImages:
    return FileImages([path for path, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64))
