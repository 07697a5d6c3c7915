from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.data import FileImages, Splits, View
from distillctl.data import eval_loader, limit_training, train_loader
from distillctl.data.augment import evaluation_transform, training_transform
from distillctl.data.decode import read_image
from distillctl.data.hashing import VIEW, mix
from distillctl.data.workers import start_method, worker_deaths
from distillctl.errors import DataError, MachineError, ProfileError, RunError
from distillctl.testing.trees import write_tree

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("images"), {"a": 6, "b": 5})
    paths = sorted(root.rglob("*.jpg"))
    return FileImages(paths, torch.tensor([int(p.parent.name == "b") for p in paths]))


def splits_of(files, augment="autoaugment", **view):
    view = {"size": 12, "resize": 14, "eval_resize": 14} | view
    return Splits(files, files, None, ("a", "b"), MEAN, STD, View(augment=augment, **view), "made up")


def loader_of(splits, *, size=5, seed=7, workers=0, **more):
    return train_loader(splits, batch_size=size, seed=seed, device=CPU, workers=workers, **more)


def epochs_of(loader, *epochs):
    try:
        return [list(loader.epoch(e)) for e in epochs]
    finally:
        loader.close()


def same(first, second):
    return all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.index, b.index)
        for a, b in zip(first, second, strict=True)
    )


def normalised(view):
    return (view.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize("augment", ["autoaugment", "random_resized_crop"])
def test_a_view_is_the_transform_seeded_by_seed_epoch_and_index(files, augment):
    splits = splits_of(files, augment, resize=14)
    transform = training_transform(splits.view)
    for epoch, batches in enumerate(epochs_of(loader_of(splits), 0, 1)):
        assert [len(b.index) for b in batches] == [5, 6]
        assert sorted(i for b in batches for i in b.index.tolist()) == list(range(11))
        for batch in batches:
            assert torch.equal(batch.labels, files.labels[batch.index])
            for i, got in zip(batch.index.tolist(), batch.images, strict=True):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(mix(7, epoch, VIEW, i))
                    want = normalised(transform(read_image(files.paths[i])))
                assert torch.allclose(got.double(), want, atol=1e-5)


def test_any_number_of_workers_gives_the_same_bits(files):
    splits = splits_of(files)
    alone = epochs_of(loader_of(splits), 0, 1)
    for workers in (1, 3):
        together = epochs_of(loader_of(splits, workers=workers), 0, 1)
        assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(alone[0][0].index, alone[1][0].index)


def test_any_epoch_can_be_had_first(files):
    splits = splits_of(files)
    (third,) = epochs_of(loader_of(splits), 3)
    assert same(third, epochs_of(loader_of(splits, workers=2), 0, 3)[1])


def test_batch_size_changes_no_view(files):
    splits = splits_of(files)
    found = []
    for size in (2, 11):
        (batches,) = epochs_of(loader_of(splits, size=size), 1)
        found.append({int(i): x for b in batches for i, x in zip(b.index, b.images, strict=True)})
    assert all(torch.equal(found[0][i], found[1][i]) for i in range(11))


def test_an_epoch_left_halfway_leaves_nothing_behind(files):
    splits = splits_of(files)
    loader = loader_of(splits, size=2, workers=2)
    next(loader.epoch(0))
    (after,) = epochs_of(loader, 1)
    assert same(after, epochs_of(loader_of(splits, size=2), 1)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_generators_of_the_run_are_not_touched(files, workers):
    splits = splits_of(files)
    torch.manual_seed(5)
    random.seed(5)
    states = torch.get_rng_state(), random.getstate()
    epochs_of(loader_of(splits, workers=workers), 0, 1)
    evaluation = eval_loader(splits, files, batch_size=4, device=CPU, workers=workers, tta="ten_crop")
    list(evaluation)
    evaluation.close()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_memory_format_changes_no_bit(files):
    splits = splits_of(files)
    (plain,), (last,) = epochs_of(loader_of(splits), 0), epochs_of(loader_of(splits, channels_last=True), 0)
    assert same(plain, last)
    assert last[0].images.is_contiguous(memory_format=torch.channels_last)


def evaluated(splits, files, **more):
    loader = eval_loader(splits, files, batch_size=4, device=CPU, **({"workers": 0} | more))
    try:
        return list(loader)
    finally:
        loader.close()


def test_evaluation_is_in_order_and_the_same_for_any_number_of_workers(files):
    splits = splits_of(files)
    batches = evaluated(splits, files)
    assert torch.cat([b.index for b in batches]).tolist() == list(range(11))
    assert torch.equal(torch.cat([b.labels for b in batches]), files.labels)
    transform = evaluation_transform(splits.view)
    want = torch.stack([normalised(transform(read_image(p))) for p in files.paths])
    assert torch.allclose(torch.cat([b.images for b in batches]).double(), want, atol=1e-5)
    assert same(batches, evaluated(splits, files, workers=2))


@pytest.mark.parametrize("channels_last", [False, True])
def test_views_of_test_time_augmentation(files, channels_last):
    splits = splits_of(files)
    single = torch.cat([b.images for b in evaluated(splits, files)])
    flip = torch.cat([b.images for b in evaluated(splits, files, tta="flip", channels_last=channels_last)])
    assert torch.equal(flip[:, 0], single)
    assert torch.equal(flip[:, 1], single.flip(-1))
    ten = torch.cat([b.images for b in evaluated(splits, files, tta="ten_crop", tta_resize=14, channels_last=channels_last)])
    assert ten.shape == (11, 10, 3, 12, 12)
    assert torch.equal(ten[:, 4], single)  # the centre crop after the same resize
    five = torch.cat([b.images for b in evaluated(splits, files, tta="five_crop", tta_resize=14, channels_last=channels_last)])
    assert torch.equal(five, ten[:, :5])


def test_a_loader_can_be_gone_through_again(files):
    loader = eval_loader(splits_of(files), files, batch_size=4, device=CPU, workers=1)
    assert same(list(loader), list(loader))
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["broken", "missing"])
def test_a_bad_file_is_named_once_without_a_traceback(tmp_path, files, workers, kind):
    bad = tmp_path / "bad.jpg"
    if kind == "broken":
        bad.write_bytes(files.paths[0].read_bytes()[:200])
    splits = splits_of(FileImages([*files.paths[:3], bad], torch.tensor([0, 0, 1, 1])))
    loader = loader_of(splits, size=2, workers=workers)
    with pytest.raises(DataError) as error:
        list(loader.epoch(0))
    loader.close()
    text = str(error.value)
    assert f"`{bad}`" in text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1


class DyingTransform(torch.nn.Module):
    def forward(self, image):
        os._exit(9)


class FaultyTransform(torch.nn.Module):
    def forward(self, image):
        raise RuntimeError("a bug in a transform")


def with_transform(loader, transform):
    loader._pipeline._loader.dataset._transform = transform
    return loader


def test_a_worker_that_dies_ends_the_run_with_a_reason(files):
    loader = with_transform(loader_of(splits_of(files), workers=1), DyingTransform())
    with pytest.raises(RunError, match="a process that decodes images died"):
        list(loader.epoch(0))
    loader.close()


def test_a_worker_that_dies_during_a_step_gives_the_same_reason(files):
    """torch raises from a signal handler, wherever the program is at that moment."""
    loader = loader_of(splits_of(files), size=2, workers=1)
    batches = loader.epoch(0)
    next(batches)
    (worker,) = loader._pipeline._loader._iterator._workers

    @worker_deaths()
    def step():
        os.kill(worker.pid, signal.SIGKILL)
        for _ in range(3000):  # not `worker.join()`, which would take the news away from torch
            time.sleep(0.01)

    with pytest.raises(RunError, match="a process that decodes images died"):
        step()
    loader.close()


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
        "Caught RuntimeError in DataLoader worker process 0.\nunable to allocate shared memory(shm) for file </torch_7_8>: No space left",
        "unable to write to file </torch_7_8_9>: No space left on device (28)",
        "unable to open shared memory object </torch_7_8_9> in read-write mode: No space left on device (28)",
    ],
)
def test_too_little_shared_memory_is_the_machines(words):
    with pytest.raises(MachineError, match="shared memory") as caught, worker_deaths():
        raise RuntimeError(words)
    assert caught.value.exit_code == 3
    assert "`train.workers = 0`" in caught.value.problems[0].hint


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_worker_keeps_its_traceback(files, workers):
    loader = with_transform(loader_of(splits_of(files), workers=workers), FaultyTransform())
    with pytest.raises(RuntimeError, match="a bug in a transform"):
        list(loader.epoch(0))
    loader.close()


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


@pytest.mark.skipif(not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="counts processes through Linux's /proc")
def test_workers_live_through_epochs_and_end_when_closed(files):
    before = set(children())
    loader = loader_of(splits_of(files), workers=2)
    assert set(children()) == before  # nothing is started before the first batch is asked for
    list(loader.epoch(0))
    started = set(children()) - before
    assert len(started) == 2
    list(loader.epoch(1))
    assert set(children()) - before == started
    loader.close()
    for _ in range(200):
        if set(children()) <= before:
            break
        time.sleep(0.05)
    assert set(children()) <= before
    with pytest.raises(RuntimeError, match="closed"):
        next(loader.epoch(0))


def test_more_workers_than_cores_do_not_warn(files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (batches,) = epochs_of(loader_of(splits_of(files), size=2, workers=5), 0)
    assert len(batches) == 5


def test_limited_split_counts_from_zero(files):
    splits = limit_training(splits_of(files), 6, 0)
    (batches,) = epochs_of(loader_of(splits), 0)
    index = torch.cat([b.index for b in batches])
    assert sorted(index.tolist()) == list(range(6))
    assert torch.equal(torch.cat([b.labels for b in batches]), splits.train.labels[index])


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"resize": 11}, "`resize` must be at least the crop's 12 pixels, not 11"),
        ({"eval_resize": 11}, "`eval_resize` must be at least the crop's 12 pixels, not 11"),
        ({"augment": "mixup"}, "cannot be augmented by `mixup`"),
    ],
)
def test_what_cannot_be_cut_is_refused(files, view, message):
    with pytest.raises(ProfileError, match=message):
        loader_of(splits_of(files, **view))


def test_ten_crops_need_room(files):
    for tta in ("five_crop", "ten_crop"):
        with pytest.raises(ProfileError, match=r"`evaluate\.tta_resize` must be at least the crop's 12 pixels, not 8"):
            evaluated(splits_of(files), files, tta=tta, tta_resize=8)


def test_files_are_read_as_the_view_says(tmp_path):
    drawing = np.zeros((20, 20, 4), np.uint8)
    Image.fromarray(drawing).save(tmp_path / "a.png")
    Image.fromarray(np.full((20, 20), 4095, np.uint16)).save(tmp_path / "b.png")
    files = FileImages([tmp_path / "a.png", tmp_path / "b.png"], torch.tensor([0, 1]))
    splits = splits_of(files, "none", white=4095.0, background=[255, 0, 0])
    (batch,) = eval_loader(splits, files, batch_size=2, device=torch.device("cpu"), workers=0)
    want = normalised(torch.tensor([[255, 0, 0], [255, 255, 255]], dtype=torch.uint8)[..., None, None].expand(2, 3, 12, 12))
    torch.testing.assert_close(batch.images, want.float())
    with pytest.raises(DataError, match="20×20 pixels"):
        next(iter(eval_loader(splits_of(files, max_megapixels=1e-4), files, batch_size=2, device=torch.device("cpu"), workers=0)))


@pytest.mark.parametrize(("chosen", "expected"), [(None, "fork" if sys.platform == "linux" else None), ("spawn", None)])
def test_a_start_method_that_the_program_has_chosen_stays(monkeypatch, chosen, expected):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: chosen)
    assert start_method() == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_balanced_epoch_sees_repeated_images_in_other_views(files, workers):
    rare = files.subset(torch.tensor([0, 1, 2, 3, 4, 5, 6]))  # six of `a`, one of `b`
    splits = splits_of(rare, "crop_flip", resize=24)
    plain, balanced = (loader_of(splits, size=3, workers=workers, balanced=choice) for choice in (False, True))
    usual = {int(i): image for batch in epochs_of(plain, 2)[0] for i, image in zip(batch.index, batch.images, strict=True)}
    (whole,) = epochs_of(balanced, 2)
    assert [batch.count for batch in whole] == [3, 4]
    seen = [(int(i), image) for batch in whole for i, image in zip(batch.index, batch.images, strict=True)]
    assert torch.equal(torch.cat([batch.labels for batch in whole]), rare.labels[[i for i, _ in seen]])
    of_rare = [image for i, image in seen if i == 6]
    assert len(of_rare) in (3, 4)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(of_rare, 2))
    assert sum(torch.equal(image, usual[6]) for image in of_rare) == 1  # the first draw
    assert all(torch.equal(image, usual[i]) for i, image in seen if i != 6)
    again = loader_of(splits, size=3, workers=workers, balanced=True)
    assert same(list(again.epoch(2, 1)), whole[1:])
    again.close()
