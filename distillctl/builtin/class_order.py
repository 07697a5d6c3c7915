"""Whether a teacher's answers fit the classes of the data better in another order than in the one in which it is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distillctl.text import natural_key

_SURELY = 4.0
"""Standard deviations by which another order has to be better."""


def better_order(predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[str, str]:
    """What the answers fit far better, in words, and what to do; empty if they fit the order as it is.

    predictions, labels: int64, (N,). Orders of the names are tried first: of their numbers, of their letters with and without case. Then
    any order: one half of the images shows which answer stands for which class, and the other half whether that holds.
    """
    right = float((predictions == labels).double().mean())
    for order, words, hint in (
        (sorted(classes, key=natural_key), "in the order of their numbers", '`dataset.class_order = "natural"`'),
        (sorted(classes), "in the order of their letters", "leave out `dataset.class_order`"),
        (sorted(classes, key=str.casefold), "in the order of their letters without case", f"`dataset.class_order = {_listed(classes)}`"),
    ):
        if order != list(classes):
            places = torch.tensor([order.index(name) for name in classes])
            if _far_better(reached := _share(predictions, places[labels]), right, len(labels)):
                return f"{words} ({reached:.1%} are right instead of {right:.1%})", hint
    shown = torch.arange(len(labels)) % 2 == 0
    tried = ~shown
    order_by_label = labels.argsort(stable=True)  # both halves have images of each class
    predictions, labels = predictions[order_by_label], labels[order_by_label]
    size = len(classes)
    counts = torch.bincount(labels[shown] * size + predictions[shown], minlength=size * size).reshape(size, size)
    places = counts.argmax(1)
    seen = counts.sum(1) > 0
    one_each = len(places[seen].unique()) == int(seen.sum())
    reached = _share(predictions[tried], places[labels[tried]])
    if one_each and _far_better(reached, right, int(tried.sum())):
        hint = "state the order in which it was trained as a list, `dataset.class_order = [...]`"
        return f"in another order ({reached:.1%} are right instead of {right:.1%})", hint
    return "", ""


def _share(predictions: Tensor, expected: Tensor) -> float:
    return float((predictions == expected).double().mean()) if len(expected) else 0.0


def _far_better(reached: float, right: float, count: int) -> bool:
    deviation = math.sqrt(max(right * (1 - right), 1 / count) / count)
    return reached > right + max(0.2, _SURELY * deviation)


def _listed(classes: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in sorted(classes, key=str.casefold)[:3]) + ", ...]"
