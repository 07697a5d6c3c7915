"""What a data set says of itself."""

from __future__ import annotations

import torch

from distillctl.api.data import ArrayImages, Splits, View


def splits(*classes: str) -> Splits:
    images = ArrayImages(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    return Splits(images, None, None, classes, (0.5,) * 3, (0.5,) * 3, View(8), "made up: train 2")


def test_an_overview_has_the_first_classes() -> None:
    assert splits("a", "b").overview == "2 classes (`a`, `b`); made up: train 2"
    assert splits("a", "b", "c", "d", "e").overview == "5 classes (`a`, `b`, `c` and 2 more); made up: train 2"
    assert splits().overview == "made up: train 2"
