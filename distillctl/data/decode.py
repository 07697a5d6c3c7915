"""Image files to uint8 pixels.

Pillow decodes, for it reads every format that people have and torchvision's own decoders are on their way out
(deprecated since torchvision 0.29). What follows works on tensors, where resizing is faster.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from distillctl.errors import DataError


def read_image(path: str | Path) -> Tensor:
    """The first picture of a file, turned upright as its EXIF data say: uint8, (3, H, W), with the strides of (H, W, 3).

    Grey, palette, CMYK and 16-bit pictures become RGB; transparency is dropped.

    Raises:
        DataError: the file is missing or cannot be decoded; the message names it.
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_rgb(image))
    except FileNotFoundError as error:
        raise DataError(f"the image `{path}` is missing") from error
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error on broken files
        raise DataError(f"the image `{path}` cannot be decoded: {_reason(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
