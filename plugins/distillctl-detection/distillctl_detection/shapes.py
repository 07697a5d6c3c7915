"""Pictures of squares, circles and triangles, drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillctl import ArrayImages, Splits, View
from distillctl_detection.options import ShapesOptions

CLASSES = ("circle", "square", "triangle")
_SMALLEST, _LARGEST = 1 / 10, 1 / 2
"""Sides of shapes, of the picture's."""
_APART = 48
"""By how much a shape differs from what is behind it in one channel at least, of 255."""


def build(options: ShapesOptions, seed: int) -> Splits:
    """Splits of pictures that differ by the run's seed; each split has a stream of its own, so that its size changes no other."""
    counts = {"train": options.train, "val": options.val, "test": options.test}
    splits = {}
    for number, (name, count) in enumerate(counts.items()):
        draw = torch.Generator().manual_seed(seed * len(counts) + number)
        pairs = [_picture(image, options, draw) for image in range(count)]
        splits[name] = ArrayImages(torch.stack([pixels for pixels, _ in pairs]), targets=[target for _, target in pairs])
    return Splits(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        classes=CLASSES,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        view=View(size=options.image_size),
        description=f"drawn shapes: {', '.join(f'{name} {count}' for name, count in counts.items())}",
    )


def _picture(number: int, options: ShapesOptions, draw: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    """uint8 (S, S, 3) and its target. Shapes lie over one another; one of which less than half can be seen is drawn nowhere."""
    size = options.image_size
    pixels = _colour(draw).expand(size, size, 3).clone()
    owner = torch.full((size, size), -1)
    shapes: list[tuple[int, list[int], int]] = []  # class, box, pixels
    for _ in range(_whole(0, options.most, draw)):
        kind, side = _whole(0, len(CLASSES) - 1, draw), _whole(round(size * _SMALLEST), round(size * _LARGEST), draw)
        left, top = _whole(0, size - side, draw), _whole(0, size - side, draw)
        inside = _mask(CLASSES[kind], side, left, top, size)
        behind = pixels[inside].mean(0)
        colour = _colour(draw)
        while (colour - behind).abs().max() < _APART:
            colour = _colour(draw)
        after = torch.where(inside, len(shapes), owner)
        if any(2 * int((after == other).sum()) < shape[2] for other, shape in enumerate(shapes)):
            continue
        owner = after
        pixels[inside] = colour
        shapes.append((kind, [left, top, left + side, top + side], int(inside.sum())))
    pixels += torch.randn(size, size, 3, generator=draw) * options.noise
    boxes = torch.tensor([box for _, box, _ in shapes], dtype=torch.float32).reshape(-1, 4)
    target = {
        "boxes": boxes,
        "labels": torch.tensor([kind for kind, _, _ in shapes], dtype=torch.int64),
        "crowd": torch.zeros(len(shapes), dtype=torch.bool),
        "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        "image_id": torch.tensor(number),
        "size": torch.tensor([size, size]),
        "scale": torch.ones(2),
        "offset": torch.zeros(2),
    }
    return pixels.round().clamp(0, 255).to(torch.uint8), target


def _mask(kind: str, side: int, left: int, top: int, size: int) -> Tensor:
    """Where a shape is that fills a square of this side: bool, (size, size)."""
    middles = torch.arange(size) + 0.5
    y, x = (middles - top)[:, None] / side, (middles - left)[None, :] / side  # in the square from 0 to 1
    within = (y > 0) & (y < 1) & (x > 0) & (x < 1)
    if kind == "circle":
        return (x - 0.5).square() + (y - 0.5).square() < 0.25
    if kind == "triangle":  # the tip at the top
        return within & ((x - 0.5).abs() < y / 2)
    return within


def _colour(draw: torch.Generator) -> Tensor:
    return torch.rand(3, generator=draw) * 255


def _whole(low: int, high: int, draw: torch.Generator) -> int:
    """An integer between these, both included."""
    return int(torch.randint(low, high + 1, (), generator=draw))
