"""Images a second of the loader of image files, without and with each cache, beside torchvision's ImageFolder and DataLoader, in turns:

    uv run python tests/yardstick/loaders.py FOLDER [--augment crop_flip] [--workers 2] [--rounds 4]

FOLDER holds one folder of images for each class. Every round reads one epoch of each; the figures are medians, and caches are made before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from os import environ

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl.api.data import FileImages, Splits, View
from distillctl.data import train_loader
from distillctl.data.pixels import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


def main() -> None:
    """Prints a line for each loader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--augment", default="crop_flip", choices=("crop_flip", "autoaugment"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environ["DISTILLCTL_CACHE"] = cache
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Reads epochs in turns."""
    policy = [v2.AutoAugment()] if given.augment == "autoaugment" else [v2.RandomHorizontalFlip()]
    steps = [v2.Resize(given.resize), v2.RandomCrop(given.size), *policy, v2.PILToTensor()]
    theirs = ImageFolder(given.folder, v2.Compose(steps))
    loader = DataLoader(theirs, given.batch, shuffle=True, num_workers=given.workers, persistent_workers=given.workers > 0)
    normalise = Normalise(MEAN, STD, CPU)
    epochs: dict[str, Callable[[int], int]] = {"torchvision": lambda _epoch: sum(len(normalise(pixels)) for pixels, _ in loader)}
    paths, labels = zip(*theirs.samples, strict=True)
    for name in ("none", "ram", "disk"):
        images = FileImages(list(paths), torch.tensor(labels))
        view = View(size=given.size, augment=given.augment, resize=given.resize, cache=name)
        splits = Splits(images, None, None, tuple(theirs.classes), MEAN, STD, view)
        started = time.perf_counter()
        ours = train_loader(splits, batch_size=given.batch, seed=0, device=CPU, workers=given.workers)
        print(f"{name:<12} made in {time.perf_counter() - started:.1f} s")
        epochs[name] = lambda epoch, ours=ours: sum(batch.count for batch in ours.epoch(epoch))
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for epoch in range(1 + given.rounds):  # the first starts the workers
        for name in [*epochs][epoch % len(epochs) :] + [*epochs][: epoch % len(epochs)]:  # nobody is always the first
            started = time.perf_counter()
            count = epochs[name](epoch)
            rates[name].append(count / (time.perf_counter() - started))
    for name, found in rates.items():
        print(f"{name:<12} {statistics.median(found[1:]):8.0f} images/s")


if __name__ == "__main__":
    main()
