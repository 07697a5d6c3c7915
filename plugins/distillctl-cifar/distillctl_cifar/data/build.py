"""Builds the data sets `cifar10` and `cifar100`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillctl import ArrayImages, DataError, Splits, View, stratified_split
from distillctl_cifar.data import archive, folders, places
from distillctl_cifar.data.arrays import SIDE, Arrays
from distillctl_cifar.options import CIFAROptions


@dataclass(frozen=True)
class _Facts:
    """What is known of a data set. mean, std: of the training images, a number a channel, as everybody uses them."""

    name: str
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_CIFAR10 = _Facts("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = _Facts("cifar100", 100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def build_cifar10(options: CIFAROptions, seed: int) -> Splits:
    """CIFAR-10; `seed` chooses the validation split.

    Raises:
        ProfileError: there are no files. DataError: they are not what they should be.
    """
    return _build(_CIFAR10, options, seed)


def build_cifar100(options: CIFAROptions, seed: int) -> Splits:
    """CIFAR-100 with its 100 fine classes; `seed` chooses the validation split.

    Raises:
        ProfileError: there are no files. DataError: they are not what they should be.
    """
    return _build(_CIFAR100, options, seed)


def _build(facts: _Facts, options: CIFAROptions, seed: int) -> Splits:
    arrays = _read(facts, options.root, options.download)
    train, val = ArrayImages(arrays.train_images, arrays.train_labels), None
    if options.val_fraction > 0:
        kept, carved = stratified_split(train.labels, options.val_fraction, seed)
        if not len(carved):
            raise DataError(f"`val_fraction = {options.val_fraction}` is so small that no class gives an image to the validation split")
        train, val = train.subset(kept), train.subset(carved)
    test = ArrayImages(arrays.test_images, arrays.test_labels)
    parts = f"{len(train)} images for training, {len(val) if val else 'none'} for validation, {len(test)} for the test"
    return Splits(
        train=train,
        val=val,
        test=test,
        classes=arrays.classes,
        mean=facts.mean,
        std=facts.std,
        view=View(size=SIDE, augment=options.augment, padding=4),
        description=f"{places.FILES[facts.name].title} from {arrays.source}: {parts}",
    )


def _read(facts: _Facts, root: Path, download: bool) -> Arrays:
    """What lies in `root` or beside it (`places.find`), else what was downloaded."""
    place = places.find(facts.name, root)
    if place is None:
        if not download:
            raise places.missing(facts.name, root)
        archive.download(facts.name, root)
        return archive.read(facts.name, root)
    if place.kind == "folders":
        return folders.read(facts.name, root, facts.classes)
    return archive.read(facts.name, archive.unpack(facts.name, place.path) if place.kind == "archive" else place.path.parent)
