"""Views of unequal sizes: a batch is as large as its largest view, whoever computes it, and beside a view all is zero."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
import torch
from PIL import Image

from distillctl.api.data import FileImages, Splits, View
from distillctl.data import eval_loader, train_loader
from distillctl.data.order import Share
from distillctl.errors import PluginError, ProfileError

CPU = torch.device("cpu")
SIZES = [(6, 9), (9, 6), (5, 12), (12, 5), (8, 8), (7, 10), (10, 7), (4, 4), (12, 12), (6, 11), (11, 3)]
MEAN, STD = (0.4, 0.5, 0.6), (0.25,) * 3


class Grown:
    """Whole pictures, in training made larger by 0 to 3 rows and columns of white."""

    def training(self, image, target):
        return self._grown(image, target, self._drawn())

    def evaluation(self, image, target):
        return self._grown(image, target, 0)

    def extent(self, target):
        by = self._drawn()
        return tuple(side + by for side in target["size"].tolist())

    def _drawn(self):
        return int(torch.randint(0, 4, ()))

    def _grown(self, image, target, by):
        view = torch.nn.functional.pad(image, (0, by, 0, by), value=255)
        return view, {"size": target["size"], "view": torch.tensor(view.shape[1:])}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unequal")
    for i, (height, width) in enumerate(SIZES):
        Image.new("RGB", (width, height), (200, 100, 10 * i)).save(folder / f"{i:02d}.png")
    return FileImages(sorted(folder.iterdir()), targets=[{"size": torch.tensor(size)} for size in SIZES])


def splits_of(files, **changes):
    view = View(size=12, largest=(16, 16), multiple=4)
    return replace(Splits(files, files, None, (), MEAN, STD, view, "made up", joint=Grown()), **changes)


def epoch_of(splits, number=0, first=0, batch_size=4, **more):
    with closing(train_loader(splits, batch_size=batch_size, seed=7, device=CPU, workers=more.pop("workers", 0), **more)) as loader:
        batches = list(loader.epoch(number, first))
        assert len(batches) == loader.steps - first
        return batches


def evaluated(splits):
    with closing(eval_loader(splits, splits.val, batch_size=4, device=CPU, workers=0)) as loader:
        return list(loader)


def test_a_batch_is_as_large_as_its_largest_view_and_zero_beside_them(files):
    shapes = set()
    for batch in [*epoch_of(splits_of(files)), *evaluated(splits_of(files))]:
        views = torch.stack([target["view"] for target in batch.targets])
        assert list(batch.images.shape[2:]) == [-(-int(side) // 4) * 4 for side in views.amax(0)]
        shapes.add(tuple(batch.images.shape[2:]))
        for image, index, (height, width) in zip(batch.images, batch.index.tolist(), views.tolist(), strict=True):
            pixel = (torch.tensor([200, 100, 10 * index]) / 255 - torch.tensor(MEAN)) / 0.25
            torch.testing.assert_close(image[:, 0, 0], pixel, rtol=1e-5, atol=1e-5)
            inside = image[:, :height, :width]
            assert bool((inside != 0).all())
            assert int(image.count_nonzero()) == inside.numel()
    assert len(shapes) > 1


@pytest.mark.parametrize("groups", [None, torch.tensor([int(width > height) for height, width in SIZES])])
def test_processes_pad_to_the_largest_of_all_rows(files, groups):
    splits = splits_of(replace(files, groups=groups))
    whole = epoch_of(splits, batch_size=7)
    parts = [epoch_of(splits, batch_size=7, share=Share(rank, 2)) for rank in range(2)]
    alone = 0
    for one, *rows in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([row.index for row in rows]), one.index)
        assert torch.equal(torch.cat([row.images for row in rows]), one.images)
        assert {row.total for row in rows} == {len(one.index)}
        own = [torch.stack([target["view"] for target in row.targets]).amax(0).tolist() for row in rows]
        alone += own[0] != own[1]
    assert alone, "no process would have padded less by itself"


def test_batches_of_groups_go_on_where_they_stopped(files):
    groups = torch.tensor([int(width > height) for height, width in SIZES])
    splits = splits_of(replace(files, groups=groups))
    whole, rest = epoch_of(splits, 3, batch_size=3), epoch_of(splits, 3, 2, batch_size=3)
    assert len(rest) == len(whole) - 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)
    assert all(len(set(groups[batch.index].tolist())) == 1 for batch in whole)
    assert torch.cat([batch.index for batch in whole]).sort().values.tolist() == list(range(11))


@pytest.mark.slow
def test_workers_pad_as_the_process_itself(files):
    for one, other in zip(epoch_of(splits_of(files)), epoch_of(splits_of(files), workers=2), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)


def test_images_of_a_class_come_in_groups_too(files):
    """Groups are the loader's: views of one size and labels beside them know nothing of it."""
    groups = torch.arange(11) % 2
    plain = replace(files, targets=None, labels=torch.arange(11), groups=groups)
    splits = Splits(plain, None, None, tuple("abcdefghijk"), MEAN, STD, View(size=8, augment="crop_flip"))
    batches = epoch_of(splits, batch_size=3)
    assert all(len(set(groups[batch.index].tolist())) == 1 for batch in batches)
    assert all(torch.equal(batch.labels, batch.index) for batch in batches)
    assert torch.equal(plain.subset(torch.tensor([4, 3])).groups, torch.tensor([0, 1]))
    with pytest.raises(ProfileError, match="batches of this data set have images of one group"):
        epoch_of(splits, balanced=True)


def test_views_of_unequal_sizes_need_somebody_who_tells_them(files):
    class Silent:
        training, evaluation = Grown.training, Grown.evaluation

    for joint in (Silent(), None):
        with pytest.raises(PluginError, match="nothing that cuts views of unequal sizes"):
            evaluated(splits_of(files, joint=joint))
