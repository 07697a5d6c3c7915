"""The digits of scikit-learn as splits in memory."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from distillctl import ArrayImages, Splits, View, three_way_split
from distillctl_digits.options import DigitsOptions

_WHITE = 16  # the counts of inked pixels in 4×4 blocks, which is what the original gives, go from 0 to 16


def build(options: DigitsOptions, seed: int) -> Splits:
    """1797 images, split by seed within every class; mean and standard deviation are those of the training part."""
    raw = load_digits()
    pixels = (torch.from_numpy(raw.images) * (255 / _WHITE)).round().to(torch.uint8)  # (N, 8, 8)
    grey_as_rgb = pixels[..., None].repeat(1, 1, 1, 3)  # the networks of the model zoos take three channels
    images = ArrayImages(grey_as_rgb, torch.from_numpy(raw.target).long())
    train, val, test = (images.subset(part) for part in three_way_split(images.labels, options.val_fraction, options.test_fraction, seed))
    scaled = train.images.double() / 255
    return Splits(
        train=train,
        val=val if len(val) else None,
        test=test if len(test) else None,
        classes=tuple(str(digit) for digit in range(10)),
        mean=(float(scaled.mean()),) * 3,
        std=(float(scaled.std(correction=0)),) * 3,
        view=View(size=8, augment=options.augment, padding=1 if options.augment == "crop_flip" else 0),
        description=f"scikit-learn's digits: train {len(train)}, val {len(val)}, test {len(test)}, carved by seed",
    )
