"""The contract for data sets finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.data.splits import stratified_split
from distillctl.testing.datasets import DatasetContract


def good(seed):
    labels = torch.arange(40) % 4
    images = torch.randint(0, 256, (40, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    every = ArrayImages(images, labels)
    train, test = stratified_split(labels, 0.3, seed)
    return Splits(every.subset(train), None, every.subset(test), tuple("abcd"), (0.5,) * 3, (0.2,) * 3, View(size=4), "made up: 28 and 12")


def leaking(seed):
    splits = good(seed)
    images, labels = splits.train.images.clone(), splits.train.labels.clone()
    images[0], labels[0] = splits.test.images[3], splits.test.labels[3]
    return replace(splits, train=ArrayImages(images, labels))


def unseeded_generator(seed):
    splits = good(seed)
    return replace(splits, train=splits.train.subset(torch.randperm(len(splits.train))))


FAULTS = {
    "test_splits_share_no_picture": (leaking, "a picture lies in the data twice"),
    "test_same_seed_same_splits": (unseeded_generator, "the same seed, and other splits"),
    "test_classes_are_sorted_and_every_label_names_one": (lambda seed: replace(good(seed), classes=tuple("abdc")), "are not sorted"),
    "test_the_description_counts_the_images": (lambda seed: replace(good(seed), description="made up"), "lacks numbers of images"),
    "test_statistics_fit_the_channels": (lambda seed: replace(good(seed), mean=(0.5,)), "for each channel"),
}


def contract(builder):
    class Contract(DatasetContract):
        def build(self, folder, seed=0):
            return builder(seed)

    return Contract()


def call(case, name, tmp_path):
    test = getattr(case, name)
    return test(case.build(tmp_path), tmp_path) if name == "test_same_seed_same_splits" else test(case.build(tmp_path))


@pytest.mark.parametrize("name", [n for n in dir(DatasetContract) if n.startswith("test_")])
def test_a_good_data_set_passes(name, tmp_path):
    call(contract(good), name, tmp_path)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name, tmp_path):
    builder, message = FAULTS[name]
    with pytest.raises(AssertionError, match=message):
        call(contract(builder), name, tmp_path)


def test_a_data_set_that_ignores_the_seed_is_found(tmp_path):
    with pytest.raises(AssertionError, match="another seed, and the same splits"):
        call(contract(lambda seed: good(0)), "test_same_seed_same_splits", tmp_path)
