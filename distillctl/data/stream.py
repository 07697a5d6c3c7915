"""Loaders for image files: worker processes decode and cut to uint8, normalisation happens on the device.

A worker is handed an epoch with draws, so it lives through all epochs, and every view has a seed of its own,
mix(seed, epoch, VIEW, draw): results do not depend on the number of workers, and none is drawn from the run's own
generators.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from distillctl.api.data import NO_LABEL, ArrayImages, FileImages, Splits, StoredImages, View, take_labels, take_targets
from distillctl.api.method import Batch
from distillctl.data.augment import evaluation_transform, five_crop_transform, short_side, ten_crop_transform, training_transform
from distillctl.data.batches import Tta, Workers
from distillctl.data.decode import read_image
from distillctl.data.hashing import VIEW, mix
from distillctl.data.order import (
    WHOLE,
    Share,
    balanced_order,
    batch_bounds,
    epoch_order,
    grouped_batches,
    image_of,
    mixed_length,
    mixed_order,
)
from distillctl.data.packed import Packed, pack, unpack
from distillctl.data.pixels import Normalise
from distillctl.data.resized import Store, stored
from distillctl.data.workers import as_it_is, no_advice, prepare_worker, start_method, worker_count, worker_deaths
from distillctl.errors import DataError, Problem

_CPU = torch.device("cpu")
_Draw = int  # an image, with the number of its earlier draws in the epoch (`balanced_order`)


class _Key(NamedTuple):
    """A batch that is wanted: what this process takes of it, and what others take."""

    epoch: int
    draws: list[_Draw]
    others: list[_Draw]


class _Loaded(NamedTuple):
    """What a worker makes of a batch.

    views: uint8. images: int64, their positions. targets: of joint views. sizes: int64, (B, 2), height and width of views of unequal sizes.
    """

    views: Tensor
    images: Tensor
    targets: Packed | None
    sizes: Tensor | None


class _Views(Dataset[_Loaded | Problem]):
    """What a worker does: decode the files of a batch and cut a view out of each.

    transform: takes an image, and with `joint` its target, too; then it gives both.
    extent: of the views of unequal sizes of a training (`UnequalViews`).
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
        extent: Callable[[Any], tuple[int, int]] | None = None,
    ) -> None:
        self._paths = images.paths if isinstance(images, StoredImages) else [str(p) for p in images.paths]
        self._boxes = images.parts if isinstance(images, FileImages) else None
        self._view, self._transform, self._seed, self._store = view, transform, seed, store
        self._targets, self._extent = images.targets if joint else None, extent

    def __getitems__(self, key: _Key) -> _Loaded | Problem:
        """A whole batch. A broken file is handed over as a value: an exception would arrive wrapped in a traceback."""
        try:
            with no_advice():
                views: Any = [self._cut(key.epoch, draw) for draw in key.draws]
        except DataError as error:
            return error.problems[0]
        targets = sizes = None
        if self._targets is not None:
            views, cut = zip(*views, strict=True)
            targets = pack(cut)
            if self._view.largest is not None:
                views, sizes = self._padded(views, key)
        stacked: Tensor = default_collate(views)  # in a worker: straight into shared memory
        return _Loaded(stacked, torch.tensor([image_of(draw) for draw in key.draws]), targets, sizes)

    def _padded(self, views: Sequence[Tensor], key: _Key) -> tuple[list[Tensor], Tensor]:
        """Views of the size of the batch, and the sizes that they had."""
        own = [(view.shape[1], view.shape[2]) for view in views]
        others = []
        for draw in key.others:
            assert self._targets is not None
            assert self._extent is not None
            with own_generator(mix(self._seed, key.epoch, VIEW, draw)):
                others.append(self._extent(self._targets[image_of(draw)]))
        step = self._view.multiple
        height, width = (-(-max(sides) // step) * step for sides in zip(*own, *others, strict=True))
        return [F.pad(view, (0, width - view.shape[2], 0, height - view.shape[1])) for view in views], torch.tensor(own)

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


class _Keys(Sampler[Any]):
    """The batches of the epoch that was begun.

    cut: the batches of an epoch. count: how many there are in every epoch. whole: what others take of a batch is told, too.
    """

    def __init__(self, cut: Callable[[int], list[list[_Draw]]], count: int, share: Share = WHOLE, *, whole: bool = False) -> None:
        self._cut, self._count, self._share, self._whole = cut, count, share, whole
        self._epoch, self.batches = 0, list[list[_Draw]]()

    def begin(self, epoch: int, first: int) -> None:
        self._epoch, self.batches = epoch, self._cut(epoch)[first:]

    def __iter__(self) -> Iterator[_Key]:
        for batch in self.batches:
            own = self._share.rows(batch)
            others = sorted(set(batch).difference(own)) if self._whole else []
            yield _Key(self._epoch, own, others)

    def __len__(self) -> int:
        return self._count


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
            self._loader: DataLoader[_Loaded | Problem] | None = DataLoader(
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
        self._keys.begin(epoch, first)
        with no_advice():
            batches = iter(self._loader)
        while True:
            with worker_deaths():
                loaded = next(batches, None)
            if loaded is None:
                return
            if isinstance(loaded, Problem):
                raise DataError(loaded)
            pixels, index, packed, sizes = loaded
            labels = take_labels(self._source.labels, index)
            targets: Any = take_targets(self._source.targets, index) if packed is None else unpack(packed, self._moved)
            if isinstance(targets, Tensor):
                (targets,) = self._moved(targets)
            pixels, labels, index = self._moved(pixels, labels, index)
            images = self._normalise(pixels)
            if sizes is not None:
                images = images.masked_fill_(_beside(self._moved(sizes)[0], images), 0.0)
            yield Batch(images, labels, index, targets=targets)

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


def _beside(sizes: Tensor, images: Tensor) -> Tensor:
    """Where in a batch (B, C, H, W) no view lies: bool, (B, 1, H, W)."""
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[-2:])
    return ((rows >= sizes[:, :1])[:, :, None] | (columns >= sizes[:, 1:])[:, None, :])[:, None]


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
        smallest = 2 * share.processes
        bounds = batch_bounds(count, batch_size, smallest=smallest)

        def cut(epoch: int) -> list[list[_Draw]]:
            if images.groups is not None:
                return grouped_batches(images.groups, batch_size, seed, epoch, smallest=smallest)
            if unlabelled:
                found = mixed_order(images.labels, unlabelled, seed, epoch, _CPU)
            else:
                found = balanced_order(images.labels, seed, epoch, _CPU) if balanced else epoch_order(len(images), seed, epoch, _CPU)
            order = found.tolist()
            return [order[start:end] for start, end in bounds]

        self.steps = len(bounds) if images.groups is None else len(cut(0))
        self._keys = _Keys(cut, self.steps, share, whole=splits.view.largest is not None and share.processes > 1)
        if splits.joint is None:
            store = stored(images, splits.view, short_side(splits.view), workers)
            views = _Views(images, splits.view, training_transform(splits.view), seed, store)
        else:
            extent = getattr(splits.joint, "extent", None)
            views = _Views(images, splits.view, splits.joint.training, seed, joint=True, extent=extent)
        normalise = Normalise(splits.mean, splits.std, device, channels_last=channels_last)
        self._pipeline = _Pipeline(views, self._keys, images, normalise, device, workers)
        self.share = share

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, from batch `first` on.

        Raises:
            DataError: a file is missing or broken.
            RunError: a worker process died.
        """
        for number, batch in enumerate(self._pipeline.batches(epoch, first)):
            yield replace(batch, total=len(self._keys.batches[number]))

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
        batches = [list(range(start, end)) for start, end in batch_bounds(count, batch_size)[share.rank :: share.processes]]
        keys = _Keys(lambda _epoch: batches, len(batches))
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
