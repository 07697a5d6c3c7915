"""What the task asks of a detector, whichever it is: rows with labels and losses, levels, and a head that answers to given places."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from distillctl import RunError

STRIDE = 32
"""Batches have heights and widths that are multiples of this; torchvision would pad others."""

Pyramid = Mapping[str, Tensor]


class Proposals(NamedTuple):
    """What a detector says of the places from which it learns, R in all images.

    logits: (R, C). Of a softmax: the background and K classes. Of a sigmoid for each class: (R·K, 2), zeros and the logits, a row for each
        place and class.
    boxes: where that is, for each image: boxes (R_i, 4) in pixels, or with a `grid` the numbers of anchors, int64, (R_i,).
    labels: int64, one a row: the class, 0 for the background; of sigmoids 1 where the class is there. None without targets.
    losses: 0-dim, by torchvision's names without `loss_`; empty without targets.
    grid: what the numbers are of: `Detector.grid`.
    """

    logits: Tensor
    boxes: Sequence[Tensor]
    labels: Tensor | None = None
    losses: Mapping[str, Tensor] = MappingProxyType({})
    grid: Hashable = None


class Detector(nn.Module):
    """The base of detectors, which inherit it before torchvision's class.

    `forward(images, targets=None, seeds=(), *, pyramid_only=False)` takes images (B, 3, H, W). In evaluation it gives a dict of `boxes`
    (M, 4), `labels` (1 … K) and `scores` for each image; with targets, whose `boxes` are in pixels and whose `labels` are 1 … K,
    `Proposals` with the losses; with `pyramid_only` the levels. seeds: of each image, for what is drawn.

    first_stride: of the first of its levels.
    weighs: whether its losses know boxes that count differently: `weights` of a target's boxes and one of its `background` (see
        `distillctl_detection.weighted`).
    unequal: whether it takes views that fill a part of their image: its forward has `sizes`, height and width of each.
    grid: tells the anchors that are numbered in `Proposals.boxes` from those of others; None where these are boxes.
    heads: the modules whose outputs become detections, by their paths.
    """

    first_stride: ClassVar[int]
    weighs: ClassVar[bool] = False
    unequal: ClassVar[bool] = False
    grid: Hashable = None
    heads: ClassVar[tuple[str, ...]] = ("head",)

    def side_of(self, levels: Pyramid) -> int:
        """Height in pixels of the batch whose levels these are."""
        return int(next(iter(levels.values())).shape[-2]) * self.first_stride

    def some_places(self, images: Tensor) -> list[Tensor]:
        """Three places in each image, as in `Proposals.boxes`, to look at the shapes of answers."""
        raise NotImplementedError

    def classify(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> Tensor:
        """Logits of places of each image, as `Proposals` has them, from its levels and the height of the batch in pixels."""
        raise NotImplementedError

    def detect(self, levels: Pyramid, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[dict[str, Tensor]]:
        """What it finds, in evaluation mode, by the levels of its pyramid, as `forward` gives it.

        Raises:
            RunError: this detector has no such way.
        """
        raise RunError(
            "boxes are learnt from a `fasterrcnn` or an `onnx`, and this teacher is neither", hint="methods on maps take any detector"
        )

    def answer(self, levels: Pyramid, asked: Proposals) -> Proposals:
        """What this detector says to the places that another one has learnt from.

        Raises:
            RunError: those are numbers of anchors that this one does not have.
        """
        if asked.grid != self.grid:
            raise RunError(
                "methods on logits compare the same places, and student and teacher have different anchors",
                hint="use methods on maps, or a teacher of the student's kind with the same options for anchors",
            )
        return asked._replace(logits=self.classify(levels, asked.boxes, self.side_of(levels)), labels=None, losses={})


class NotFiniteError(RunError):
    """A head gave a number that is not finite."""

    def __init__(self) -> None:
        super().__init__("the answers of the detector are not finite", hint="are its weights whole, or did its training diverge?")


@contextmanager
def finite_heads(model: nn.Module) -> Iterator[None]:
    """Around a forward in evaluation mode. torchvision leaves out detections that are not finite, and would merely find less.

    Raises:
        NotFiniteError: a head gave a number that is not finite.
    """
    finite: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        finite.extend(value.isfinite().all() for value in tree_leaves(output))

    hooks = [model.get_submodule(name).register_forward_hook(note) for name in getattr(model, "heads", ())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if finite and not torch.stack(finite).all():
        raise NotFiniteError


def sides_of(images: Tensor) -> tuple[int, int]:
    """Height and width of a batch in pixels.

    Raises:
        RunError: torchvision would pad it.
    """
    height, width = images.shape[-2:]
    if height % STRIDE or width % STRIDE:
        raise RunError(f"a detector sees views whose sides are multiples of {STRIDE} pixels, not {height}×{width}")
    return height, width


def side_of_square(images: Tensor) -> int:
    """Side of square views in pixels.

    Raises:
        RunError: they are not square, or of a size that torchvision would pad.
    """
    height, width = sides_of(images)
    if height != width:
        raise RunError(f"this detector sees square views, not {height}×{width}", hint="`fasterrcnn` takes views of any shape")
    return height


def terms_of(losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """The losses of torchvision by their names without `loss_`."""
    return {name.removeprefix("loss_"): value for name, value in losses.items()}
