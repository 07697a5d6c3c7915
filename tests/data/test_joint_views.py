"""Images and targets that are cut together: points that lie on a bright pixel, and stay on it."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from distillctl.api.data import ArrayImages, FileImages, LazyTargets, Splits, View
from distillctl.commands.resume_check import listing
from distillctl.data import eval_loader, train_loader
from distillctl.data.decode import read_image
from distillctl.data.hashing import VIEW, mix
from distillctl.data.packed import pack, unpack
from distillctl.data.splits import content_hash, limit_training
from distillctl.errors import PluginError, ProfileError

CPU = torch.device("cpu")
SIDE = 12
MEAN, STD = (0.5,) * 3, (0.25,) * 3


class Points:
    """Moves the picture and its points right by 0 to 3 pixels; where there is no chance, by 1."""

    def training(self, image, target):
        return self._moved(image, target, int(torch.randint(0, 4, ())))

    def evaluation(self, image, target):
        return self._moved(image, target, 1)

    def _moved(self, image, target, by):
        view = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        view[:, : image.shape[1], by : by + image.shape[2]] = image
        return view, {"points": target["points"] + torch.tensor([by, 0]), "name": target["name"]}


def targets_of(count):
    points = [[[j + i % 3, i % 5] for j in range(i % 4)] for i in range(count)]
    return [{"points": torch.tensor(one).reshape(-1, 2), "name": torch.tensor(100 + i)} for i, one in enumerate(points)]


class Lazy(LazyTargets):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return targets_of(11)[self.rows[index]]

    def subset(self, index):
        return Lazy([self.rows[i] for i in index.tolist()])

    def digest(self):
        return f"rows {self.rows}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    for i, target in enumerate(targets_of(11)):
        picture = Image.new("RGB", (8, 6))
        for x, y in target["points"].tolist():
            picture.putpixel((x, y), (255, 255, 255))
        picture.save(folder / f"{i:02d}.png")
    return FileImages(sorted(folder.iterdir()), targets=targets_of(11))


def splits_of(files, **changes):
    splits = Splits(files, files, None, (), MEAN, STD, View(size=SIDE), "made up", joint=Points())
    return replace(splits, **changes)


def epoch_of(splits, number=0, workers=0, **more):
    with closing(train_loader(splits, batch_size=4, seed=7, device=CPU, workers=workers, **more)) as loader:
        return list(loader.epoch(number))


def evaluated(splits, **more):
    with closing(eval_loader(splits, splits.val, batch_size=4, device=CPU, workers=more.pop("workers", 0), **more)) as loader:
        return list(loader)


def lit(images):
    """Positions of the bright pixels, (x, y)."""
    return sorted((images[0] > 0).nonzero().flip(-1).tolist())


def test_a_point_stays_on_its_pixel(files):
    for batch in [*epoch_of(splits_of(files)), *evaluated(splits_of(files))]:
        assert isinstance(batch.targets, list)
        assert len(batch.labels) == 0
        for image, index, target in zip(batch.images, batch.index.tolist(), batch.targets, strict=True):
            assert int(target["name"]) == 100 + index
            assert target["name"].shape == ()
            assert target["points"].shape == (index % 4, 2)
            assert lit(image) == sorted(target["points"].tolist())
    for batch in evaluated(splits_of(files)):
        for index, target in zip(batch.index.tolist(), batch.targets, strict=True):
            assert torch.equal(target["points"], files.targets[index]["points"] + torch.tensor([1, 0]))


def test_draws_depend_on_seed_epoch_and_image(files):
    for epoch in (0, 1):
        for batch in epoch_of(splits_of(files), epoch):
            for index, target in zip(batch.index.tolist(), batch.targets, strict=True):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(mix(7, epoch, VIEW, index))
                    _, want = Points().training(read_image(files.paths[index]), files.targets[index])
                assert torch.equal(target["points"], want["points"])


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same(files):
    here, there = splits_of(files), splits_of(replace(files, targets=Lazy(list(range(11)))))
    for one, other in ((epoch_of(here), epoch_of(there, workers=2)), (evaluated(here), evaluated(there, workers=2))):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.index, b.index)
            assert all(torch.equal(x["points"], y["points"]) and x["name"] == y["name"] for x, y in zip(a.targets, b.targets, strict=True))


def test_mirrored_views_come_with_the_targets_of_the_first(files):
    for plain, batch in zip(evaluated(splits_of(files)), evaluated(splits_of(files), tta="flip"), strict=True):
        assert torch.equal(batch.images[:, 0], plain.images)
        assert torch.equal(batch.images[:, 1], plain.images.flip(-1))
        assert [t["points"].tolist() for t in batch.targets] == [t["points"].tolist() for t in plain.targets]


def test_a_limit_keeps_targets_and_their_kind(files):
    limited = limit_training(splits_of(replace(files, targets=Lazy(list(range(11))))), 5, 0)
    kept = limited.train.targets
    assert isinstance(kept, Lazy)
    assert [f"{row:02d}.png" for row in kept.rows] == [path.name for path in limited.train.paths]
    seen = sorted(int(target["name"]) for batch in epoch_of(limited) for target in batch.targets)
    assert seen == sorted(100 + row for row in kept.rows)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": ArrayImages(torch.zeros(4, 6, 8, 3, dtype=torch.uint8), targets=targets_of(4))}, ProfileError, "in memory are not cut"),
        ({"view": View(size=SIDE, augment="crop_flip", cache="ram")}, ProfileError, '`cache = "ram"` keeps images that were resized alone'),
        ({"train": None}, PluginError, "has no targets"),
    ],
)
def test_what_cannot_be_cut_together_is_refused(files, changes, error, message):
    changes = {key: replace(files, targets=None) if value is None else value for key, value in changes.items()}
    with pytest.raises(error, match=message):
        epoch_of(splits_of(files, **changes))


@pytest.mark.parametrize("tta", ["five_crop", "ten_crop"])
def test_crops_are_refused(files, tta):
    with pytest.raises(ProfileError, match=f"`{tta}` cuts crops, and the views of this data set are cut together"):
        evaluated(splits_of(files), tta=tta)


def test_each_key_is_moved_once_and_comes_back_as_it_was():
    targets = [{"a": torch.rand(n, 4), "b": torch.tensor(n), "c": torch.rand(2, n) > 0.5} for n in (3, 0, 1)]
    sent = []

    def moved(*tensors):
        sent.extend(tensors)
        return [t.clone() for t in tensors]

    again = unpack(pickle.loads(pickle.dumps(pack(targets))), moved)
    assert len(sent) == 3
    for before, after in zip(targets, again, strict=True):
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert (after[key].shape, after[key].dtype) == (value.shape, value.dtype)
            assert torch.equal(after[key], value)


def test_what_is_packed_passes_through_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())  # that needs a GPU
    targets = [{"a": torch.rand(n, 4), "b": torch.tensor(n)} for n in (3, 0)]
    pixels, packed, nothing = pin_memory((torch.zeros(2), pack(targets), None))
    again = unpack(packed, lambda *tensors: tensors)
    assert (pixels.shape, nothing) == ((2,), None)
    assert all(torch.equal(one[key], other[key]) for one, other in zip(targets, again, strict=True) for key in one)


def test_a_run_that_goes_on_compares_every_number_of_a_target(files):
    def told(value):
        targets = [{"points": torch.full((2000, 2), 0.5), "name": torch.tensor(1)} for _ in range(11)]
        targets[3]["points"][1000, 1] = value
        pixels = torch.zeros(11, 6, 8, 3, dtype=torch.uint8)
        return listing(splits_of(replace(files, targets=targets)))["train"], content_hash(ArrayImages(pixels, targets=targets))

    (listed, hashed), same, other = told(0.50001), told(0.50001), told(0.50002)
    assert (listed, hashed) == same
    assert listed != other[0]
    assert hashed != other[1]


def test_a_run_that_goes_on_compares_lazy_targets_by_their_digest(files):
    one, other = (listing(splits_of(replace(files, targets=Lazy(rows))))["train"] for rows in (list(range(11)), [*range(10), 9]))
    assert one != other
    assert one != listing(splits_of(replace(files, targets=None)))["train"]
