"""Image files to uint8 pixels.

Pillow decodes, for it reads every format that people have and torchvision's own decoders are on their way out
(deprecated since torchvision 0.29). What follows works on tensors, where resizing is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from distillctl.api.data import MAX_MEGAPIXELS
from distillctl.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Pillow's names of the formats that are read. Others are not tried, since Pillow would start Ghostscript for PostScript."""
_FOREIGN = {b"%!PS": "PostScript", b"%PDF": "PDF", b"<htm": "HTML", b"<!do": "HTML", b"<svg": "SVG", b"<?xm": "XML", b"8BPS": "Photoshop"}
_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"jp2 ": "JPEG 2000"}


@contextmanager
def open_image(path: str | Path, *, max_megapixels: float | None = None) -> Iterator[Image.Image]:
    """An image file whose header has been read; what goes wrong with it afterwards is told in the same way.

    Args:
        path: a file in one of `FORMATS`, whatever its ending.
        max_megapixels: the most pixels that it may have, in millions, compared before anything is decoded; None means `MAX_MEGAPIXELS`.

    Raises:
        DataError: the file is missing, is of another format, has too many pixels or cannot be decoded; the message names it.
    """
    most = MAX_MEGAPIXELS if max_megapixels is None else max_megapixels
    try:
        with _BOUND.lifted(), Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > most * 1e6:
                raise DataError(
                    f"the image `{path}` has {width}×{height} pixels, more than the {most:g} megapixels of `dataset.max_megapixels`",
                    hint=f"make it smaller, or let it pass: `--set dataset.max_megapixels={-(-width * height // 1_000_000)}`",
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(f"the image `{path}` is missing") from error
    except DataError:
        raise
    except Exception as error:  # Pillow raises anything from SyntaxError to struct.error on broken files
        raise DataError(f"the image `{path}` cannot be decoded: {_reason(error, path)}") from error


def read_image(path: str | Path, *, max_megapixels: float | None = None) -> Tensor:
    """The first picture of a file, turned upright as its EXIF data say: uint8, (3, H, W), with the strides of (H, W, 3).

    Grey, palette, CMYK and 16-bit pictures become RGB; transparency is dropped.

    Raises:
        DataError: as `open_image`.
    """
    with open_image(path, max_megapixels=max_megapixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.array(_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


class _PillowBound:
    """Lifts Pillow's own bound, which warns at 89 megapixels and refuses 179, while at least one thread reads an image.

    Pillow keeps it in one variable of the process, which afterwards is what it was.
    """

    def __init__(self) -> None:
        self._lock, self._readers = Lock(), 0
        self._before: int | None = None

    @contextmanager
    def lifted(self) -> Iterator[None]:
        with self._lock:
            if not self._readers:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    Image.MAX_IMAGE_PIXELS = self._before


_BOUND = _PillowBound()


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


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a known format ({', '.join(FORMATS)}){_guess(path)}"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _guess(path: str | Path) -> str:
    """What a file of another format is, by its first bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return ""
    if not start:
        return ", but empty"
    found = _BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else _FOREIGN.get(start[:4].lower() if start[:1] == b"<" else start[:4])
    return f", but {found}" if found else ""
