"""JPEG files decoded by torchcodec, which takes less time than Pillow: where it is installed and gives the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@cache
def jpeg_decoder() -> Callable[[bytes], Tensor] | None:
    """From a file's bytes to uint8 pixels, (3, H, W), with the strides of (H, W, 3); None where Pillow has to do it.

    A few pictures are decoded by both once: libraries of another kind or version may round otherwise, and a run must not depend on what
    is installed.
    """
    try:
        decode = import_module("torchcodec.decoders").decode_jpeg
        same = all(torch.equal(decode(data, mode="RGB"), _by_pillow(data)) for data in _trials())
    except Exception:  # noqa: BLE001 - it is not there, was made for another torch, or has another interface
        return None
    return partial(decode, mode="RGB") if same else None


def _by_pillow(data: bytes) -> Tensor:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _trials() -> Iterator[bytes]:
    """A picture of hard edges, of odd sides, in the ways in which colours are stored."""
    picture = Image.fromarray((np.arange(67 * 101 * 3, dtype=np.int64) * 7919 % 256).astype(np.uint8).reshape(67, 101, 3))
    kinds: list[dict[str, Any]] = [{"subsampling": 2}, {"subsampling": 1}, {"subsampling": 0, "progressive": True}, {}]
    for more in kinds:
        file = BytesIO()
        picture.convert("RGB" if more else "L").save(file, "JPEG", quality=60, **more)
        yield file.getvalue()
