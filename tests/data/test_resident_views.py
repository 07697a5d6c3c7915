from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as T

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.data import eval_loader, limit_training, train_loader
from distillctl.data.pixels import Normalise
from distillctl.data.resident import PixelTable, crop_flip
from distillctl.errors import DataError, ProfileError

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def arrays(count=23, height=8, width=8, channels=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=g)
    return ArrayImages(images, torch.arange(count) % 4)


def splits_of(images, *, size=8, augment="crop_flip", padding=2, val=None, rotation=0.0):
    channels = images.images.shape[-1]
    view = View(size=size, augment=augment, padding=padding, rotation=rotation)
    return Splits(images, val, None, tuple("abcd"), MEAN[:channels], STD[:channels], view, "made up")


def loader_of(splits, *, size=5, seed=7, **more):
    return train_loader(splits, batch_size=size, seed=seed, device=CPU, workers="auto", **more)


def by_torchvision(image, top, left, flip, padding, size, mean, std):
    """Pad, crop, flip, scale, normalise one image (H, W, C), step by step."""
    x = T.pad(image.permute(2, 0, 1), [padding])
    x = T.crop(x, top, left, size, size)
    x = T.horizontal_flip(x) if flip else x
    return T.normalize(T.to_dtype(x, torch.float32, scale=True), list(mean), list(std))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "channels", "size", "padding"), [(8, 8, 3, 8, 2), (8, 8, 1, 8, 1), (9, 12, 3, 7, 0), (6, 8, 3, 10, 4)]
)
def test_equals_torchvision_for_the_same_draws(height, width, channels, size, padding, channels_last):
    images = arrays(23, height, width, channels)
    splits = splits_of(images, size=size, padding=padding)
    for batch in loader_of(splits, channels_last=channels_last).epoch(3):
        tops, lefts, flips = crop_flip(batch.index, 7, 3, (height + 2 * padding - size + 1, width + 2 * padding - size + 1))
        for i, top, left, flip, got in zip(batch.index, tops, lefts, flips, batch.images, strict=True):
            want = by_torchvision(images.images[i], int(top), int(left), bool(flip), padding, size, splits.mean, splits.std)
            assert torch.allclose(got, want, atol=1e-6, rtol=0)
        if channels_last and channels > 1:
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
        else:
            assert channels_last or batch.images.is_contiguous()


def test_memory_format_changes_no_bit():
    splits = splits_of(arrays())
    for a, b in zip(loader_of(splits).epoch(0), loader_of(splits, channels_last=True).epoch(0), strict=True):
        assert torch.equal(a.images, b.images)


def test_draws_are_uniform_and_independent():
    top, left, flip = crop_flip(torch.arange(81 * 400), 1, 2, (9, 9))
    cells = torch.bincount(top * 9 + left, minlength=81)
    assert len(cells) == 81
    assert float(((cells - 400) ** 2 / 400).sum()) < 80 + 5 * 160**0.5  # chi-squared of 80 degrees, five standard deviations
    for where in (flip, ~flip):
        part = torch.bincount(top[where] * 9 + left[where], minlength=81)
        assert float(((part - 200) ** 2 / 200).sum()) < 80 + 5 * 160**0.5 + 10
    assert abs(float(flip.double().mean()) - 0.5) < 0.014


def test_draws_depend_on_seed_epoch_and_image_but_not_on_the_batch():
    index = torch.arange(64)
    draws = torch.stack([d.long() for d in crop_flip(index, 1, 2, (9, 9))])
    alone = torch.cat([torch.stack([d.long() for d in crop_flip(index[i : i + 1], 1, 2, (9, 9))]) for i in range(64)], dim=1)
    assert torch.equal(draws, alone)
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(draws, torch.stack([d.long() for d in crop_flip(index, seed, epoch, (9, 9))]))
    assert len({tuple(c) for c in draws.t().tolist()}) > 32


def test_views_do_not_depend_on_the_batch_size():
    splits = splits_of(arrays())
    views = []
    for size in (2, 5, 23):
        found = {int(i): x for b in loader_of(splits, size=size).epoch(4) for i, x in zip(b.index, b.images, strict=True)}
        views.append(torch.stack([found[i] for i in range(23)]))
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])


def test_last_single_image_joins_the_batch_before():
    loader = loader_of(splits_of(arrays(21)))
    assert [len(b.index) for b in loader.epoch(0)] == [5, 5, 5, 6]
    assert loader.steps == 4


def test_an_epoch_draws_nothing_from_the_global_generator():
    loader = loader_of(splits_of(arrays()))
    state = torch.get_rng_state()
    list(loader.epoch(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("height", "size"), [(8, 8), (9, 8), (8, 5), (11, 8), (6, 8), (7, 10)])
def test_evaluation_is_torchvisions_centre_crop(height, size):
    images = arrays(7, height, 8)
    splits = splits_of(images, size=size, augment="none", val=images)
    got = torch.cat([b.images for b in eval_loader(splits, images, batch_size=3, device=CPU, workers=0)])
    crops = T.center_crop(images.images.permute(0, 3, 1, 2), [size, size])
    want = T.normalize(T.to_dtype(crops, torch.float32, scale=True), list(MEAN), list(STD))
    assert torch.allclose(got, want, atol=1e-6, rtol=0)


def test_training_without_augmentation_sees_what_evaluation_sees():
    images = arrays(9)
    splits = splits_of(images, augment="none")
    evaluated = torch.cat([b.images for b in eval_loader(splits, images, batch_size=4, device=CPU, workers=0)])
    for batch in loader_of(splits).epoch(0):
        assert torch.equal(batch.images, evaluated[batch.index])


def test_black_lies_outside():
    table = PixelTable(torch.full((2, 4, 4, 3), 255, dtype=torch.uint8), CPU)
    one = torch.ones(1, dtype=torch.int64)
    cut = table.cut(one, -one, -one, torch.zeros(1, dtype=torch.bool), 6)
    assert cut.shape == (1, 3, 6, 6)
    assert int(cut[:, :, 1:5, 1:5].min()) == 255
    assert int(cut.int().sum()) == 255 * 3 * 16
    normalised = Normalise(MEAN, STD, CPU)(cut)
    assert normalised[0, :, 0, 0].tolist() == pytest.approx([-m / s for m, s in zip(MEAN, STD, strict=True)], rel=1e-6)


def test_many_pixels_count_in_int64(monkeypatch):
    small = PixelTable(arrays(5).images, CPU)
    large = PixelTable(arrays(5).images, CPU)
    assert small._number == torch.int32
    large._number = torch.int64
    index = torch.tensor([4, 0, 2])
    draw = (torch.tensor([-1, 0, 2]), torch.tensor([1, -2, 0]), torch.tensor([True, False, True]))
    assert torch.equal(small.cut(index, *draw, 8), large.cut(index, *draw, 8))


def test_what_cannot_be_cut_is_refused():
    images = arrays()
    with pytest.raises(ProfileError, match="a crop of 13 pixels does not fit into images of 8 with a padding of 2"):
        loader_of(splits_of(images, size=13))
    with pytest.raises(ProfileError, match="not by `autoaugment`"):
        loader_of(splits_of(images, augment="autoaugment"))
    with pytest.raises(ProfileError, match="images in memory are not rotated"):
        loader_of(splits_of(images, rotation=20.0))
    for tta in ("five_crop", "ten_crop"):
        with pytest.raises(ProfileError, match=f"`{tta}` needs image files"):
            eval_loader(splits_of(images), images, batch_size=2, device=CPU, workers=0, tta=tta)
    with pytest.raises(DataError, match="no training images"):
        loader_of(splits_of(images.subset(torch.arange(0))))


def test_limited_split_counts_from_zero():
    splits = limit_training(splits_of(arrays()), 9, 0)
    index = torch.cat([b.index for b in loader_of(splits).epoch(0)])
    assert sorted(index.tolist()) == list(range(9))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_cuda_gives_the_same_batches_without_waiting(channels_last):
    splits, device = splits_of(arrays(64)), torch.device("cuda")
    loader = train_loader(splits, batch_size=10, seed=7, device=device, workers=0, channels_last=channels_last)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(loader.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for got, want in zip(batches, loader_of(splits, size=10, channels_last=channels_last).epoch(1), strict=True):
        assert torch.equal(got.index.cpu(), want.index)
        assert torch.allclose(got.images.cpu(), want.images, atol=1e-6)


def test_the_second_view_of_an_image_is_its_mirror_image():
    images = arrays(5, 9, 11)
    splits = splits_of(images, size=8, augment="none", val=images)
    batches = list(eval_loader(splits, images, batch_size=3, device=CPU, workers=0, tta="flip"))
    views = torch.cat([batch.images for batch in batches])
    assert views.shape == (5, 2, 3, 8, 8)
    plain = torch.cat([b.images for b in eval_loader(splits, images, batch_size=3, device=CPU, workers=0)])
    assert torch.equal(views[:, 0], plain)
    assert torch.equal(views[:, 1], T.horizontal_flip(plain))
    assert not torch.equal(views[:, 1], T.vertical_flip(plain))


def test_a_balanced_epoch_sees_repeated_images_in_other_views():
    images = arrays(12)
    images = ArrayImages(images.images, torch.tensor([0] * 10 + [1] * 2))
    plain, balanced = (loader_of(splits_of(images, padding=4), balanced=choice) for choice in (False, True))
    usual = {int(i): image for batch in plain.epoch(3) for i, image in zip(batch.index, batch.images, strict=True)}
    whole = list(balanced.epoch(3))
    assert [batch.count for batch in whole] == [5, 5, 2]
    seen = [(int(i), image) for batch in whole for i, image in zip(batch.index, batch.images, strict=True)]
    labels = torch.cat([batch.labels for batch in whole])
    assert torch.equal(labels, images.labels[[i for i, _ in seen]])
    assert labels.bincount().tolist() == [6, 6]
    for rare in (10, 11):
        views = [image for i, image in seen if i == rare]
        assert len(views) == 3
        assert not any(torch.equal(views[a], views[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
        assert sum(torch.equal(view, usual[rare]) for view in views) == 1  # the first draw
    assert all(torch.equal(image, usual[i]) for i, image in seen if i < 10)
    (later,) = balanced.epoch(3, 2)
    assert torch.equal(later.images, whole[2].images)
