"""Loaders for image files: worker processes decode and cut to uint8, normalisation happens on the device.

A worker is handed (epoch, draw) pairs, so it lives through all epochs, and every view has a seed of its own,
mix(seed, epoch, VIEW, draw): results do not depend on the number of workers, and none is drawn from the run's own
generators.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from distillctl.api.data import NO_LABEL, ArrayImages, FileImages, Splits, StoredImages, View, take_labels, take_targets
from distillctl.api.method import Batch
from distillctl.data.augment import evaluation_transform, five_crop_transform, short_side, ten_crop_transform, training_transform
from distillctl.data.batches import Tta, Workers
from distillctl.data.decode import read_image
from distillctl.data.hashing import VIEW, mix
from distillctl.data.order import WHOLE, Share, balanced_order, batch_bounds, epoch_order, image_of, mixed_length, mixed_order
from distillctl.data.packed import Packed, pack, unpack
from distillctl.data.pixels import Normalise
from distillctl.data.resized import Store, stored
from distillctl.data.workers import as_it_is, no_advice, prepare_worker, start_method, worker_count, worker_deaths
from distillctl.errors import DataError, Problem

_CPU = torch.device("cpu")
_Key = tuple[int, int]  # epoch, draw: an image, with the number of its earlier draws in the epoch (`balanced_order`)
_Loaded = tuple[Tensor, Tensor, Packed | None] | Problem  # uint8 views, indices and targets of joint views, or what is wrong with a file


class _Views(Dataset[_Loaded]):
    """What a worker does: decode the files of a batch and cut a view out of each.

    transform: takes an image, and with `joint` its target, too; then it gives both.
    """

    def __init__(
        self,
        images: FileImages | StoredImages,
        view: View,
        transform: Callable[..., Any],
        seed: int,
        store: Store | None = None,
        *,
        joint: bool = False,
    ) -> None:
        self._paths = images.paths if isinstance(images, StoredImages) else [str(p) for p in images.paths]
        self._boxes = images.parts if isinstance(images, FileImages) else None
        self._view, self._transform, self._seed, self._store = view, transform, seed, store
        self._targets = images.targets if joint else None

    def __getitems__(self, keys: list[_Key]) -> _Loaded:
        """A whole batch. A broken file is handed over as a value: an exception would arrive wrapped in a traceback."""
        try:
            with no_advice():
                views: Any = [self._cut(epoch, draw) for epoch, draw in keys]
        except DataError as error:
            return error.problems[0]
        targets = None
        if self._targets is not None:
            views, cut = zip(*views, strict=True)
            targets = pack(cut)
        stacked: Tensor = default_collate(views)  # in a worker: straight into shared memory
        return stacked, torch.tensor([image_of(draw) for _, draw in keys]), targets

    def _cut(self, epoch: int, draw: int) -> Any:
        index = image_of(draw)
        if self._store is None:
            image = read_image(self._paths[index], **self._view.reading, box=None if self._boxes is None else self._boxes[index])
        else:
            image = self._store[index]
        with own_generator(mix(self._seed, epoch, VIEW, draw)):
            return self._transform(image) if self._targets is None else self._transform(image, self._targets[index])


@contextmanager
def own_generator(seed: int) -> Iterator[None]:
    """Inside, torch's CPU generator and Python's `random` start at `seed`; afterwards they are where they were before."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which also seeds the GPU's
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)


class _Keys(Sampler[list[_Key]]):
    """This process's rows of the batches of the epoch that is set, as lists of keys."""

    def __init__(self, bounds: list[tuple[int, int]], order: Callable[[int], list[int]], share: Share = WHOLE) -> None:
        self._bounds, self._order, self._share = bounds, order, share
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[list[_Key]]:
        order = self._order(self.epoch)
        for start, end in self._bounds[self.first :]:
            yield [(self.epoch, draw) for draw in self._share.rows(order[start:end])]

    def __len__(self) -> int:
        return len(self._bounds)


class _Pipeline:
    """Worker processes, started when the first batch is asked for, and the way of a batch to the device."""

    def __init__(
        self,
        views: _Views,
        keys: _Keys,
        source: FileImages | StoredImages,
        normalise: Normalise,
        device: torch.device,
        workers: Workers,
    ) -> None:
        self._keys, self._source, self._normalise, self._device = keys, source, normalise, device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        count = worker_count(workers, len(keys), device)
        with no_advice():
            self._loader: DataLoader[_Loaded] | None = DataLoader(
                views,
                batch_sampler=keys,
                collate_fn=as_it_is,
                num_workers=count,
                persistent_workers=count > 0,
                worker_init_fn=prepare_worker if count else None,
                multiprocessing_context=start_method() if count else None,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # otherwise every epoch would draw from the run's own generator
            )

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Batches of normalised images on the device, from batch `first` on."""
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        self._keys.epoch, self._keys.first = epoch, first
        with no_advice():
            batches = iter(self._loader)
        while True:
            with worker_deaths():
                loaded = next(batches, None)
            if loaded is None:
                return
            if isinstance(loaded, Problem):
                raise DataError(loaded)
            pixels, index, packed = loaded
            labels = take_labels(self._source.labels, index)
            targets: Any = take_targets(self._source.targets, index) if packed is None else unpack(packed, self._moved)
            if isinstance(targets, Tensor):
                (targets,) = self._moved(targets)
            pixels, labels, index = self._moved(pixels, labels, index)
            yield Batch(self._normalise(pixels), labels, index, targets=targets)

    def _moved(self, *tensors: Tensor) -> list[Tensor]:
        """Copies to the device on a stream of its own, so that the copy runs beside the step before it."""
        if self._copies is None:
            return list(tensors)
        with torch.cuda.stream(self._copies):
            moved = [t.to(self._device, non_blocking=True) for t in tensors]
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._copies)
        for t in moved:
            t.record_stream(now)
        return moved

    def close(self) -> None:
        """Ends the workers now. torch has no public way to: left to the garbage collector, each can keep a program waiting for 5 s."""
        shut_down = getattr(getattr(self._loader, "_iterator", None), "_shutdown_workers", None)
        self._loader = None
        if shut_down is not None:
            shut_down()


class StreamTrainLoader:
    """Training batches of image files. Implements `TrainLoader`."""

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        workers: Workers,
        channels_last: bool = False,
        share: Share = WHOLE,
        balanced: bool = False,
    ) -> None:
        images = splits.train
        assert not isinstance(images, ArrayImages)
        unlabelled = splits.unlabelled_share
        count = mixed_length(int((images.labels != NO_LABEL).sum()), unlabelled) if unlabelled else len(images)
        self._bounds = batch_bounds(count, batch_size, smallest=2 * share.processes)

        def order(epoch: int) -> list[int]:
            if unlabelled:
                return mixed_order(images.labels, unlabelled, seed, epoch, _CPU).tolist()
            found = balanced_order(images.labels, seed, epoch, _CPU) if balanced else epoch_order(len(images), seed, epoch, _CPU)
            return found.tolist()

        keys = _Keys(self._bounds, order, share)
        if splits.joint is None:
            store = stored(images, splits.view, short_side(splits.view), workers)
            views = _Views(images, splits.view, training_transform(splits.view), seed, store)
        else:
            views = _Views(images, splits.view, splits.joint.training, seed, joint=True)
        normalise = Normalise(splits.mean, splits.std, device, channels_last=channels_last)
        self._pipeline = _Pipeline(views, keys, images, normalise, device, workers)
        self.share = share
        self.steps = len(self._bounds)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, from batch `first` on.

        Raises:
            DataError: a file is missing or broken.
            RunError: a worker process died.
        """
        batches = self._pipeline.batches(epoch, first)
        for (start, end), batch in zip(self._bounds[first:], batches, strict=True):
            yield replace(batch, total=end - start)

    def close(self) -> None:
        """Ends the worker processes."""
        self._pipeline.close()


class StreamEvalLoader:
    """Evaluation batches of image files. Implements `EvalLoader`."""

    def __init__(
        self,
        splits: Splits,
        images: FileImages | StoredImages,
        *,
        batch_size: int,
        device: torch.device,
        workers: Workers,
        tta: Tta = "",
        tta_resize: int = 0,
        channels_last: bool = False,
        share: Share = WHOLE,
    ) -> None:
        count = len(images)
        keys = _Keys(batch_bounds(count, batch_size)[share.rank :: share.processes], lambda _epoch: list(range(count)))
        normalise = Normalise(splits.mean, splits.std, device, channels_last=channels_last)
        if splits.joint is None:
            crops = {"five_crop": five_crop_transform, "ten_crop": ten_crop_transform}.get(tta)
            transform = evaluation_transform(splits.view) if crops is None else crops(splits.view, tta_resize)
            store = None if crops is not None else stored(images, splits.view, splits.view.eval_resize or splits.view.size, workers)
            views = _Views(images, splits.view, transform, 0, store)
        else:
            views = _Views(images, splits.view, splits.joint.evaluation, 0, joint=True)
        self._pipeline = _Pipeline(views, keys, images, normalise, device, workers)
        self._flip = tta == "flip"
        self.count = count

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._pipeline.batches(0):
            images = torch.stack([batch.images, batch.images.flip(-1)], dim=1) if self._flip else batch.images
            yield replace(batch, images=images, total=batch.count)

    def close(self) -> None:
        """Ends the worker processes."""
        self._pipeline.close()
