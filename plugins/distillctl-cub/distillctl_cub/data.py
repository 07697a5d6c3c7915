"""CUB-200-2011 as splits of image files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distillctl import DataError, FileImages, Splits, View, listing_hash, stratified_split, three_way_split
from distillctl_cub.listing import Listing, read_boxes, read_listing
from distillctl_cub.options import VAL_FRACTION, CUBOptions
from distillctl_cub.unpack import find

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the pretrained networks expect
_FIFTH = 0.2


def build(options: CUBOptions, seed: int) -> Splits:
    """The photographs, split as the options say.

    Raises:
        distillctl.ProfileError: the data set is missing.
        distillctl.DataError: it is incomplete or contradicts itself.
    """
    folder = find(options.root)
    listing = read_listing(folder)
    paths = [folder / "images" / Path(name) for name in listing.names]
    boxes = torch.tensor(read_boxes(folder, listing, options.margin or 0.0)) if options.crop == "box" else None
    images = FileImages(paths, torch.tensor(listing.labels), boxes=boxes)
    train, val, test = split(listing, options.split, options.val_fraction, seed)
    if options.split == "official" and not len(val) and options.val_fraction not in (0, VAL_FRACTION):
        raise DataError(f"`val_fraction = {options.val_fraction}` is so small that no class gives an image to the validation split")
    sizes = f"train {len(train)}, val {len(val)}, test {len(test)}"
    return Splits(
        train=images.subset(train),
        val=images.subset(val) if len(val) else None,
        test=images.subset(test) if len(test) else None,
        classes=listing.classes,
        mean=_MEAN,
        std=_STD,
        view=View(
            size=options.image_size,
            augment=options.augment,
            resize=options.resize or round(options.image_size * 246 / 224),
            eval_resize=options.eval_resize or options.image_size,
            cache=options.cache,
            max_megapixels=options.max_megapixels,
            white=options.white,
            background=options.background,
        ),
        description=f"CUB-200-2011 in `{folder}`, {options.split} split: {sizes}; listing {listing_hash(listing.names)}",
    )


def split(listing: Listing, kind: str, val_fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the training, validation and test images, sorted, disjoint, together all.

    `official`: the published test images; ⌊val_fraction·n⌋ of the n training images of every class for validation, by seed.
    `seeded`: of the n images of every class ⌊0.2·n⌋ for the test, then ⌊0.2·(n − test)⌋ for validation, by seed.
    """
    labels = torch.tensor(listing.labels)
    if kind == "seeded":
        return three_way_split(labels, _FIFTH, _FIFTH, seed)
    in_train = torch.tensor(listing.official_train)
    train, test = in_train.nonzero().flatten(), (~in_train).nonzero().flatten()
    kept, carved = stratified_split(labels[train], val_fraction, seed)
    return train[kept], train[carved], test
