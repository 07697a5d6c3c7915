"""Options of `npz`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl.api.options import Options, PathOption

Fraction = Annotated[float, Field(ge=0, lt=1)]
VAL_FRACTION = 0.1


class NpzOptions(Options):
    """Options of `npz`."""

    root: PathOption
    """The `.npz` file: `train_images` and `train_labels`, and the same of `val` and `test`; or `images` and `labels` alone. Images are
    uint8 of shape (N, H, W) or (N, H, W, 1 or 3), labels integers from 0; `classes` may name the classes."""
    val_fraction: Fraction = VAL_FRACTION
    """Share of every class that is carved out of the training images for validation where there is no array of it; 0 means none."""
    test_fraction: Fraction = 0.0
    """Share of every class that is carved out for the test where there is no array of it, before the validation part; 0 means none."""
    augment: Literal["crop_flip", "none"] = "crop_flip"
    """In training: a random crop after zero padding of an eighth of the side (4 pixels for 32) and a random horizontal flip, or nothing."""
