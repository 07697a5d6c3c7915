from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.data.splits import limit_training, listing_hash, shared_images, stratified_split, three_way_split
from distillctl.errors import ProfileError


def shuffled_labels(counts, seed=0):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.29, 0.5, 0.999])
def test_floor_of_every_class_and_nothing_twice(fraction):
    counts = [100, 1, 7, 0, 60, 41]
    labels = shuffled_labels(counts)
    kept, carved = stratified_split(labels, fraction, 3)
    assert sorted(kept.tolist() + carved.tolist()) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert carved.tolist() == sorted(carved.tolist())
    for c, n in enumerate(counts):
        assert int((labels[carved] == c).sum()) == math.floor(Fraction(str(fraction)) * n)


def test_twenty_nine_hundredths_of_a_hundred_is_twenty_nine():
    assert 0.29 * 100 < 29  # which is why fractions are taken as written
    assert len(stratified_split(torch.zeros(100, dtype=torch.int64), 0.29, 0)[1]) == 29


def test_seed_decides():
    labels = shuffled_labels([30, 30])
    a, b, c = (set(stratified_split(labels, 0.3, s)[1].tolist()) for s in (1, 1, 2))
    assert a == b
    assert a != c


def test_every_image_is_carved_equally_often():
    labels = torch.zeros(10, dtype=torch.int64)
    counts = sum(torch.bincount(stratified_split(labels, 0.3, seed)[1], minlength=10) for seed in range(2000))
    assert int((counts - 600).abs().max()) < 103  # five standard deviations


@pytest.mark.parametrize("seed", range(5))
def test_three_parts_are_disjoint_and_have_their_sizes(seed):
    counts = [60, 41, 5, 4]
    labels = shuffled_labels(counts, seed)
    train, val, test = three_way_split(labels, 0.2, 0.2, seed)
    assert sorted(train.tolist() + val.tolist() + test.tolist()) == list(range(len(labels)))
    for c, n in enumerate(counts):
        t = n * 2 // 10
        v = (n - t) * 2 // 10
        assert [int((labels[p] == c).sum()) for p in (train, val, test)] == [n - t - v, v, t]


def test_a_share_of_one_is_refused():
    with pytest.raises(ProfileError, match="at least 0 and below 1, not 1"):
        stratified_split(torch.zeros(3, dtype=torch.int64), 1.0, 0)


def splits_with(counts):
    labels = shuffled_labels(counts)
    images = ArrayImages(torch.arange(len(labels)).to(torch.uint8).view(-1, 1, 1, 1), labels)
    return Splits(images, None, None, tuple(str(c) for c in range(len(counts))), (0.5,), (0.5,), View(size=1), "all")


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ([50, 50], 10, [5, 5]),
        ([60, 30, 10], 10, [6, 3, 1]),
        ([97, 1, 1, 1], 4, [1, 1, 1, 1]),
        ([97, 1, 1, 1], 50, [47, 1, 1, 1]),
        ([10, 10, 10], 4, [2, 1, 1]),
        ([10, 10, 10], 29, [10, 10, 9]),
        ([5, 0, 5], 2, [1, 0, 1]),
    ],
)
def test_limit_keeps_the_shares(counts, limit, expected):
    limited = limit_training(splits_with(counts), limit, 0)
    assert torch.bincount(limited.train.labels, minlength=len(counts)).tolist() == expected
    assert f"cut to {limit} of {sum(counts)}" in limited.description


def test_limit_takes_images_with_their_labels_by_seed():
    splits = splits_with([40, 40])
    a, b, c = (limit_training(splits, 20, seed).train for seed in (0, 0, 1))
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images, c.images)
    assert torch.equal(a.labels, splits.train.labels[a.images.flatten().long()])


@pytest.mark.parametrize("limit", [0, 80, 1000])
def test_a_limit_that_limits_nothing_changes_nothing(limit):
    splits = splits_with([40, 40])
    assert limit_training(splits, limit, 0) is splits


def test_a_limit_below_one_image_a_class_is_refused():
    with pytest.raises(ProfileError, match="at least 3, one image for every class, not 2"):
        limit_training(splits_with([4, 4, 4]), 2, 0)


def test_listing_hash_tells_order_and_borders_apart():
    hashes = {listing_hash(n) for n in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [])}
    assert len(hashes) == 5
    assert listing_hash(["é", "\udcff"]) == listing_hash(iter(["é", "\udcff"]))


def test_shared_images_are_the_same_files_or_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = splits_with([40, 40]).train
    assert shared_images(arrays.subset(torch.arange(30)), arrays.subset(torch.arange(20, 80))) == 10
    files = FileImages([Path("a.jpg"), Path("b.jpg")], torch.tensor([0, 1]))
    others = FileImages([tmp_path / "b.jpg", tmp_path / "c.jpg"], torch.tensor([1, 0]))
    assert shared_images(files, others) == 1
    assert shared_images(files, arrays) == 0


def test_the_validation_images_are_not_those_that_were_next_for_the_test():
    """Otherwise both splits would be the beginning of one order, and a larger test split would take the validation images."""
    labels = torch.zeros(200, dtype=torch.int64)
    _, val, test = three_way_split(labels, 0.25, 0.2, 3)
    next_in_line = set(stratified_split(labels, 0.4, 3)[1].tolist()) - set(test.tolist())
    assert len(next_in_line) == len(val) == 40
    assert len(next_in_line & set(val.tolist())) < 25


def test_the_split_of_a_seed_stays_what_it_was():
    """Two runs are compared on the same images, whatever version trained them. The numbers were written down on 2026-11-27."""
    _, val, test = three_way_split(torch.arange(24) % 2, 0.25, 0.25, 3)
    assert val.tolist() == [5, 13, 14, 16]
    assert test.tolist() == [0, 2, 4, 7, 9, 11]
