"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, hookimpl

DISTILLCTL_API = 1
DIGITS = DatasetSpec(
    name="digits",
    summary="1797 handwritten digits of 8×8 grey pixels that come with scikit-learn: no download, seconds to train",
    paper="Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository",
    implementation="distillctl_digits.data:build",
    options="distillctl_digits.options:DigitsOptions",
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """The data set of the quickstart."""
    return DIGITS
