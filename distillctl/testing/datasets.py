"""`DatasetContract`: what every data set that a plugin declares must keep.

    class TestDigits(DatasetContract):
        spec = DIGITS
        options = {"val_fraction": 0.1}

A data set that needs files overrides `values` and makes them there:

    class TestFolder(DatasetContract):
        spec = IMAGEFOLDER

        def values(self, folder):
            return {"root": write_tree(folder, {"cat": 8, "dog": 9})}
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from distillctl.api.data import ArrayImages, Images, Splits, View, take_labels
from distillctl.api.method import Batch
from distillctl.api.specs import DatasetSpec
from distillctl.data import eval_loader, limit_training, train_loader
from distillctl.data.splits import exact
from distillctl.plugin.registry import load
from distillctl.testing.cases import options_of

_CPU = torch.device("cpu")


class DatasetContract:
    """Inherit from it, name it `Test…` and set `spec`.

    spec: the data set.
    options: values of options; `values` may be overridden instead.
    seeded: whether another seed splits otherwise; False for data sets whose splits are all given.
    distinct: whether no picture occurs twice; False for data that have real duplicates, which then are not compared.
    """

    spec: ClassVar[DatasetSpec]
    options: ClassVar[Mapping[str, object]] = {}
    seeded: ClassVar[bool] = True
    distinct: ClassVar[bool] = True

    def values(self, folder: Path) -> dict[str, Any]:
        """Values of options; files can be made in `folder`."""
        return dict(self.options)

    def build(self, folder: Path, seed: int = 0) -> Splits:
        """The splits, from the files in `folder` if there are any."""
        splits: Splits = load(self.spec.implementation, self.spec.name)(options_of(self.spec, **self.values(folder)), seed)
        return splits

    @pytest.fixture
    def splits(self, tmp_path: Path) -> Splits:
        """The splits for seed 0."""
        return self.build(tmp_path / "data")

    def test_classes_are_sorted_and_every_label_names_one(self, splits: Splits) -> None:
        """Labels count the sorted class names; train has images of every class. Of data without labels, the names are distinct."""
        if not len(splits.train.labels):
            assert len(set(splits.classes)) == len(splits.classes), "two classes have the same name"
            return
        assert len(splits.classes) >= 2
        assert list(splits.classes) == sorted(set(splits.classes)), "the names of the classes are not sorted"
        for images in _parts(splits):
            assert len(images) > 0
            assert int(images.labels.min()) >= 0
            assert int(images.labels.max()) < splits.num_classes
        assert len(torch.unique(splits.train.labels)) == splits.num_classes

    def test_statistics_fit_the_channels(self, splits: Splits) -> None:
        """A mean and a positive standard deviation for each channel of the images."""
        assert len(splits.mean) == len(splits.std) == splits.channels, "a mean and a deviation for each channel"
        assert all(0 < m < 1 for m in splits.mean)
        assert all(0 < s < 1 for s in splits.std)
        if isinstance(splits.train, ArrayImages):
            assert splits.train.images.shape[-1] == splits.channels

    def test_the_description_counts_the_images(self, splits: Splits) -> None:
        """One line for people, with the number of images of every split."""
        assert "\n" not in splits.description
        missing = [len(images) for images in _parts(splits) if str(len(images)) not in splits.description]
        assert not missing, f"the description lacks numbers of images: {missing}"

    def test_splits_share_no_picture(self, splits: Splits) -> None:
        """No file, and no picture, lies in two splits."""
        if self.distinct:
            seen = [identity for images in _parts(splits) for identity in identities(images)]
            assert len(seen) == len(set(seen)), "a picture lies in the data twice"
        else:
            files = [str(p) for images in _parts(splits) if not isinstance(images, ArrayImages) for p in images.paths]
            assert len(files) == len(set(files))

    def test_same_seed_same_splits(self, splits: Splits, tmp_path: Path) -> None:
        """Building twice gives the same images in the same order, and another seed other splits."""
        again, other = self.build(tmp_path / "data"), self.build(tmp_path / "data", seed=1)
        assert [identities(p) for p in _parts(splits)] == [identities(p) for p in _parts(again)], "the same seed, and other splits"
        assert splits.description == again.description
        assert [len(p) for p in _parts(splits)] == [len(p) for p in _parts(other)]
        if self.seeded:
            assert [set(identities(p)) for p in _parts(splits)] != [set(identities(p)) for p in _parts(other)], (
                "another seed, and the same splits"
            )

    def test_an_epoch_has_every_training_image_once(self, splits: Splits) -> None:
        """Nothing is dropped or repeated; index and label belong together; images have the size of the view."""
        with closing(train_loader(splits, batch_size=_batch_size(splits), seed=3, device=_CPU, workers=0)) as loader:
            batches = list(loader.epoch(0))
        assert len(batches) == loader.steps
        index = torch.cat([b.index for b in batches])
        assert torch.equal(index.sort().values, torch.arange(len(splits.train)))
        assert torch.equal(torch.cat([b.labels for b in batches]), take_labels(splits.train.labels, index))
        for batch in batches:
            assert batch.images.dtype == torch.float32
            assert batch.images.shape[:2] == (len(batch.index), splits.channels)
            assert _fits(splits.view, batch)
            assert bool(batch.images.isfinite().all())
            if splits.joint is not None:
                kinds = [{key: (value.dtype, value.ndim) for key, value in target.items()} for target in batch.targets]
                assert kinds == [kinds[0]] * len(batch.index), "targets of joint views have the same keys and types for all images"

    def test_epochs_repeat_exactly(self, splits: Splits) -> None:
        """The same seed and epoch give the same batches, whatever ran before; another epoch another order."""
        splits = limit_training(splits, max(2 * splits.num_classes, 24), 0)
        size = _batch_size(splits)
        first = train_loader(splits, batch_size=size, seed=3, device=_CPU, workers=0)
        second = train_loader(splits, batch_size=size, seed=3, device=_CPU, workers=0)
        before = [b.index for b in first.epoch(0)]
        for a, b in zip(first.epoch(1), second.epoch(1), strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.images, b.images)
            assert repr(exact(a.targets)) == repr(exact(b.targets))
        assert not torch.equal(torch.cat(before), torch.cat([b.index for b in second.epoch(1)]))
        first.close()
        second.close()

    def test_evaluation_goes_through_each_split_in_order(self, splits: Splits) -> None:
        """Index 0 … n − 1, labels as in the split, the view's size."""
        for images in _parts(splits)[1:]:
            with closing(eval_loader(splits, images, batch_size=_batch_size(splits), device=_CPU, workers=0)) as loader:
                batches = list(loader)
            assert loader.count == len(images)
            assert torch.equal(torch.cat([b.index for b in batches]), torch.arange(len(images)))
            assert torch.equal(torch.cat([b.labels for b in batches]), images.labels)
            assert all(b.images.shape[1] == splits.channels and _fits(splits.view, b) for b in batches)

    def test_mirrored_views(self, splits: Splits) -> None:
        """With `flip`, the second view of an image is the first one mirrored."""
        images = splits.train.subset(torch.arange(2))
        with closing(eval_loader(splits, images, batch_size=2, device=_CPU, workers=0, tta="flip")) as loader:
            views = next(iter(loader)).images
        assert views.shape[:2] == (2, 2)
        assert torch.equal(views[:, 1], views[:, 0].flip(-1))


def _fits(view: View, batch: Batch) -> bool:
    """Whether a batch has the size of the view, or, where views differ in size, lies within the largest one, turned or not."""
    sides = tuple(batch.images.shape[-2:])
    if view.largest is None:
        return sides == view.shape
    return max(sides) <= max(view.largest) and not any(side % view.multiple for side in sides)


def identities(images: Images) -> list[bytes]:
    """The content of every image or file, to compare by."""
    if not isinstance(images, ArrayImages):
        return [path.read_bytes() for path in images.paths]
    blob = images.images.cpu().contiguous().numpy().tobytes()
    size = images.images[0].numel()
    return [blob[a:b] for a, b in pairwise(range(0, len(blob) + 1, size))]


def _parts(splits: Splits) -> list[Images]:
    return [part for part in (splits.train, splits.val, splits.test) if part is not None]


def _batch_size(splits: Splits) -> int:
    return max(2, min(64, len(splits.train) // 3))
