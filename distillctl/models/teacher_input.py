"""A network that was trained elsewhere, such as a teacher, sees the view of the data in its own normalisation and at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.data import Splits

_SCALE, _SHIFT = "_input_scale", "_input_shift"


def adapt_input(
    model: nn.Module,
    data: Splits,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | None,
    source: str = "",
    called: str = "teacher",
) -> tuple[str, ...]:
    """Changes what the model sees of the images of a data set; what was changed as a sentence, or none.

    mean, std: a number for each channel, for images scaled to [0, 1]; None for those of the data. size: side length in pixels, to which
    the square views are resized on the device; None for that of the views. source: whose mean and deviation they are. called: what the
    model is in the sentence.
    """
    mean, std = tuple(mean or data.mean), tuple(std or data.std)
    size = None if size == data.view.size else size
    said = []
    if (mean, std) != (tuple(data.mean), tuple(data.std)):
        ours = [torch.tensor(values, dtype=torch.float64) for values in (data.mean, data.std)]
        theirs = [torch.tensor(values, dtype=torch.float64) for values in (mean, std)]
        scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        for name, value in ((_SCALE, scale), (_SHIFT, shift)):
            model.register_buffer(name, value.float().reshape(1, -1, 1, 1), persistent=False)  # so that it moves with the model
        said.append(f"normalised by mean {_shown(mean)} and std {_shown(std)}" + (f" of {source}" if source else ""))
    if size is not None:
        said.append(f"at {size} instead of {data.view.size} pixels")
    if not said:
        return ()

    def adapted(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        images: Tensor = args[0]
        if hasattr(module, _SCALE):
            images = images * getattr(module, _SCALE) + getattr(module, _SHIFT)
        if size is not None:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return (images, *args[1:])

    model.register_forward_pre_hook(adapted)
    return (f"the {called} sees images {' and '.join(said)}",)


def _shown(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
