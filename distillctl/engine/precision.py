"""The precision of forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, cast

import torch

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Within it, forward passes run in this precision."""
    dtype = AUTOCAST.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def precision_on(device: torch.device, stated: str) -> Precision:
    """What `auto` means on a device; everything else is what it says."""
    if stated != "auto":
        return cast(Precision, stated)
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


@contextmanager
def ieee() -> Iterator[None]:
    """On a GPU, convolutions in float32 are IEEE's within; otherwise torch computes them with the 10 bits of TF32's mantissa."""
    convolutions = cast(Any, torch.backends.cudnn).conv  # and not `allow_tf32`, which warns and must not be mixed with this
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
