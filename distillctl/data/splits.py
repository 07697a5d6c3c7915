"""Splitting by class and by seed. Every function here returns disjoint parts, whatever the seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from distillctl.api.data import NO_LABEL, ArrayImages, Images, LazyTargets, Splits
from distillctl.data.hashing import LIMIT, SPLIT, hash_index, mix
from distillctl.errors import ProfileError


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Carves ⌊fraction·n⌋ of the n images of every class out of a set, at random by seed.

    labels: int64, (N,). fraction: in [0, 1); taken as the decimal number that it is written as, so that 0.29 of 100 is 29.

    Returns:
        (kept, carved): int64 positions, sorted, disjoint, together 0 … N − 1.
    """
    if not 0 <= fraction < 1:
        raise ProfileError(f"a fraction to carve out must be at least 0 and below 1, not {fraction}")
    share = Fraction(str(fraction))
    keys = hash_index(torch.arange(len(labels)), seed, SPLIT)
    carved = [members[: int(share * len(members))] for members in _shuffled_classes(labels, keys)]
    return _parts(carved, len(labels))


def three_way_split(labels: Tensor, val_fraction: float, test_fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Test ⌊test_fraction·n⌋ of every class, then validation ⌊val_fraction·(n − test)⌋ of what is left.

    Returns:
        (train, val, test): int64 positions, sorted, disjoint, together 0 … N − 1.
    """
    rest, test = stratified_split(labels, test_fraction, seed)
    # Another seed: with the same one the validation images would be those that were next in the line for the test split.
    kept, carved = stratified_split(labels[rest], val_fraction, mix(seed, SPLIT))
    return rest[kept], rest[carved], test


def limit_training(splits: Splits, limit: int, seed: int) -> Splits:
    """Keeps `limit` training images, the same share of every class (at least one image of each), chosen by seed. Images without a label
    among labelled ones all stay, and do not count.

    A limit of 0, or one that is no smaller than the split, changes nothing. Positions in the limited split count from 0.

    Raises:
        ProfileError: the limit is smaller than the number of classes.
    """
    every = splits.train.labels
    if not bool((every != NO_LABEL).any()):  # as one class
        every = torch.zeros(len(splits.train), dtype=torch.int64)
    own, bare = (every != NO_LABEL).nonzero().flatten(), (every == NO_LABEL).nonzero().flatten()
    labels = every[own]
    if limit == 0 or limit >= len(labels):
        return splits
    counts = torch.bincount(labels, minlength=splits.num_classes).tolist()
    present = sum(n > 0 for n in counts)
    if limit < present:
        raise ProfileError(f"`dataset.limit` must be at least {present}, one image for every class, not {limit}")
    keys = hash_index(torch.arange(len(labels)), seed, LIMIT)
    chosen = [members[:quota] for members, quota in zip(_shuffled_classes(labels, keys), _quotas(counts, limit), strict=False)]
    _, index = _parts(chosen, len(labels))
    kept = torch.cat([own[index], bare])
    return replace(
        splits, train=splits.train.subset(kept), description=f"{splits.description}; training cut to {limit} of {len(labels)} images"
    )


def shared_images(first: Images, second: Images) -> int:
    """How many images of the first set are in the second, too: the same file, or in memory the same pixels."""
    if isinstance(first, ArrayImages) and isinstance(second, ArrayImages):
        ones, others = ([row.tobytes() for row in images.images.cpu().flatten(1).numpy()] for images in (first, second))
        known = set(others)
        return sum(one in known for one in ones)
    if isinstance(first, ArrayImages) or isinstance(second, ArrayImages):
        return 0
    files = {os.path.abspath(str(path)) for path in second.paths}
    return sum(os.path.abspath(str(path)) in files for path in first.paths)


def listing_hash(names: Iterable[str]) -> str:
    """Twelve hex digits that stand for these names in this order (relative paths of a split, say)."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:12]


def content_hash(images: ArrayImages) -> str:
    """Twelve hex digits that stand for the pixels, labels and targets of images in memory."""
    digest = hashlib.sha256()
    for part in (images.images, images.labels, images.targets):
        if isinstance(part, Tensor):
            digest.update(part.cpu().contiguous().numpy().data)
        elif part is not None:
            digest.update((part.digest() if isinstance(part, LazyTargets) else repr(exact(list(part)))).encode())
    return digest.hexdigest()[:12]


def exact(target: Any) -> Any:
    """The same with lists of numbers for tensors, which as text are cut short and rounded."""
    if isinstance(target, Tensor):
        return target.tolist()
    if isinstance(target, Mapping):
        return {key: exact(value) for key, value in target.items()}
    return type(target)(map(exact, target)) if type(target) in (list, tuple) else target


def _shuffled_classes(labels: Tensor, keys: Tensor) -> list[Tensor]:
    """For each class from 0 the positions of its images, in the order of their random keys."""
    order = keys.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    sizes: list[int] = torch.bincount(labels).tolist()
    return list(torch.split(order, sizes))


def _parts(carved: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
    taken = torch.zeros(count, dtype=torch.bool)
    for members in carved:
        taken[members] = True
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()


def _quotas(counts: list[int], limit: int) -> list[int]:
    """Images of each class in proportion to its size, by largest remainder, at least one where there are any."""
    total = sum(counts)
    quotas = [min(n, max(1, limit * n // total)) for n in counts]

    def lag(c: int) -> tuple[int, int]:
        """How far class c is behind its exact share; the first class wins a tie."""
        return limit * counts[c] - quotas[c] * total, -c

    while (missing := limit - sum(quotas)) > 0:
        behind = sorted((c for c in range(len(counts)) if quotas[c] < counts[c]), key=lag, reverse=True)
        for c in behind[:missing]:
            quotas[c] += 1
    while sum(quotas) > limit:  # classes that are too small for their share were given one image all the same
        quotas[min((c for c in range(len(counts)) if quotas[c] > 1), key=lag)] -= 1
    return quotas
