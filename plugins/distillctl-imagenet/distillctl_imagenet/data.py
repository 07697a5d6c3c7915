"""ImageNet as splits of image files."""

from __future__ import annotations

import torch

from distillctl import DataError, FileImages, Splits, View, listing_hash, stratified_split
from distillctl_imagenet.listing import read_listing
from distillctl_imagenet.options import ImageNetOptions
from distillctl_imagenet.places import find

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(options: ImageNetOptions, seed: int) -> Splits:
    """The photographs: the training images, of which `seed` may choose a validation split, and the official `val` as the test.

    Raises:
        distillctl.ProfileError: the data set is missing.
        distillctl.DataError: it is incomplete or contradicts itself.
    """
    places = find(options.root)
    listing = read_listing(places, options.val_labels)
    images = FileImages(listing.train, torch.tensor(listing.train_labels))
    test = FileImages(listing.val, torch.tensor(listing.val_labels))
    train, val = images, None
    if options.val_fraction:
        kept, carved = stratified_split(images.labels, options.val_fraction, seed)
        if not len(carved):
            raise DataError(f"`val_fraction = {options.val_fraction}` is so small that no class gives an image to the validation split")
        train, val = images.subset(kept), images.subset(carved)
    carved_text = f", val {len(val)} (carved from train by seed)" if val is not None else ""
    names = (f"{path.parent.name}/{path.name}" for path in (*listing.train, *listing.val))
    default = round(options.image_size * 8 / 7)
    return Splits(
        train=train,
        val=val,
        test=test,
        classes=listing.classes,
        mean=_MEAN,
        std=_STD,
        view=View(
            size=options.image_size,
            augment=options.augment,
            resize=options.resize or default,
            eval_resize=options.eval_resize or default,
        ),
        description=f"ImageNet in `{places.train.parent}`: train {len(train)}{carved_text}, test {len(test)} (the official `val`, "
        f"labels from {listing.source}); listing {listing_hash(names)}",
    )
