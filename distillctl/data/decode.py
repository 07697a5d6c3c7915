"""Image files to uint8 pixels.

Pillow decodes, for it reads every format that people have and torchvision's own decoders are on their way out
(deprecated since torchvision 0.29). Where torchcodec is installed, it decodes JPEG (`fast_jpeg`). What follows works on
tensors, where resizing is faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from distillctl.api.data import MAX_MEGAPIXELS, StoredImage
from distillctl.data.fast_jpeg import jpeg_decoder
from distillctl.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Pillow's names of the formats that are read. Others are not tried, since Pillow would start Ghostscript for PostScript."""
_TURN = Image.Transpose
_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM, 5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90,
}  # fmt: skip
ON_THEIR_SIDE = range(5, 9)
"""Orientations in which height and width change places."""
TOLD_LATE = ("PNG", "TIFF")
"""Formats where how a picture is turned may be known only once it is decoded."""
_EXIF_STARTS = (b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b"II*\0", b"MM\0*")
_EMPTY_EXIF = 14  # bytes of a block without entries
_FOREIGN = {b"%!PS": "PostScript", b"%PDF": "PDF", b"<htm": "HTML", b"<!do": "HTML", b"<svg": "SVG", b"<?xm": "XML", b"8BPS": "Photoshop"}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG", ()),
    (b"\x89PNG", "PNG", ((16, 20), (20, 24))),
    (b"GIF8", "GIF", ((6, 8), (8, 10))),
    (b"BM", "BMP", ((18, 22), (22, 26))),
    (b"II*\0", "TIFF", ()),
    (b"MM\0*", "TIFF", ()),
)
"""First bytes of formats, and where their header has width and height, if it always lies there."""
_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"jp2 ": "JPEG 2000"}


@contextmanager
def open_image(path: str | Path | StoredImage, *, max_megapixels: float | None = None) -> Iterator[Image.Image]:
    """An image file whose header has been read; what goes wrong with it afterwards is told in the same way.

    Args:
        path: a file in one of `FORMATS`, whatever its ending, or an image that lies in a larger one.
        max_megapixels: the most pixels that it may have, in millions, compared before anything is decoded; None means `MAX_MEGAPIXELS`.

    Raises:
        DataError: the file is missing, is of another format, has too many pixels or cannot be decoded; the message names it.
    """
    most = MAX_MEGAPIXELS if max_megapixels is None else max_megapixels
    try:
        file = BytesIO(path.read_bytes()) if isinstance(path, StoredImage) else path
        with _BOUND.lifted(), Image.open(file, formats=FORMATS) as image:
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


def read_image(
    path: str | Path | StoredImage,
    *,
    max_megapixels: float | None = None,
    white: float | None = None,
    background: Sequence[int] | None = None,
    box: Sequence[int] | None = None,
) -> Tensor:
    """The first picture of a file, turned upright as its EXIF data say: uint8, (3, H, W), with the strides of (H, W, 3).

    Grey, palette and CMYK pictures become RGB. A wrong EXIF block turns nothing.

    Args:
        path: as in `open_image`.
        max_megapixels: as in `open_image`.
        white: value of white where grey has more than 8 bits: 0 … white becomes 0 … 255, by ⌊256·v / (white + 1)⌋ for integers and by
            rounding 255·v / white for floating point. None: 65535 for integers, and an error for floating point.
        background: red, green and blue behind transparent pixels; None means white.
        box: left, top, right and bottom edge of the part that is wanted, in pixels of the upright picture; None means the whole.

    Raises:
        DataError: as `open_image`, or the box lies outside of the picture.
    """
    with open_image(path, max_megapixels=max_megapixels) as image:
        return pixels_of(image, white=white, background=background, box=box, called=path)


def upright_size(path: str | Path | StoredImage) -> tuple[int, int]:
    """Height and width of the picture that `read_image` gives, of whatever size, without decoding it; PNG and TIFF are decoded, since
    there how a picture is turned may be known only afterwards.

    Raises:
        DataError: the file is missing, or no image.
    """
    with open_image(path, max_megapixels=math.inf) as image:
        if image.format in TOLD_LATE:
            image.load()
        width, height = image.size
        turned = (orientation(image) or 1) in ON_THEIR_SIDE
    return (width, height) if turned else (height, width)


def pixels_of(
    image: Image.Image,
    *,
    white: float | None = None,
    background: Sequence[int] | None = None,
    box: Sequence[int] | None = None,
    called: object = "given",
) -> Tensor:
    """The pixels of an opened picture, as `read_image` gives them. called: what messages call it.

    Raises:
        DataError: the box lies outside of the picture. Other exceptions: it cannot be decoded.
    """
    if image.format == "PNG":
        image.load()
    turn = _TURNS.get(orientation(image) or 1)
    if turn is None and box is None and (fast := _fast(image)) is not None:
        return fast
    rgb = to_rgb(image, white=white, background=background)
    upright = rgb if turn is None else rgb.transpose(turn)
    pixels = np.array(upright if box is None else _part(upright, box, called))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _fast(image: Image.Image) -> Tensor | None:
    """The pixels of a common JPEG file by a faster decoder; None where there is none, or it refuses the file, which goes to Pillow."""
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or (decode := jpeg_decoder()) is None:
        return None
    file: Any = getattr(image, "fp", None)  # no part of the type that Pillow declares
    with suppress(Exception):
        file.seek(0)
        return decode(file.read())
    return None


def _part(image: Image.Image, box: Sequence[int], path: object) -> Image.Image:
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3])
    if left >= right or top >= bottom:
        raise DataError(f"nothing of the image `{path}`, {image.width}×{image.height} pixels, lies in its box {tuple(box)}")
    return image.crop((left, top, right, bottom))


def to_rgb(image: Image.Image, *, white: float | None = None, background: Sequence[int] | None = None) -> Image.Image:
    """A picture of any mode as RGB, as it lies in its file.

    Args:
        image: from `open_image`.
        white: as in `read_image`.
        background: as in `read_image`.
    """
    paper = (255, 255, 255) if background is None else tuple(background)
    return _grey(image, white, paper) if is_deep(image) else _opaque(image, paper).convert("RGB")


def orientation(image: Image.Image) -> int | None:
    """How a picture is to be turned, as EXIF numbers it, from 1 (not at all) to 8; None if its EXIF block cannot be read.

    The pixels of PNG must be loaded before, since EXIF data may follow them. TIFF is not to be turned: Pillow does it as it loads.
    """
    if image.format == "TIFF":
        return 1
    block = image.info.get("exif", b"")
    try:
        exif = image.getexif()
        if block and not exif and (not block.startswith(_EXIF_STARTS) or len(block.rstrip(b"\0")) > _EMPTY_EXIF):
            return None
        found = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - Pillow raises anything from SyntaxError to struct.error on broken blocks
        return None
    return found if isinstance(found, int) else 1


def is_deep(image: Image.Image) -> bool:
    """Whether a picture is grey and its values may go beyond 255."""
    return image.mode == "F" or image.mode.startswith("I")


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


def _grey(image: Image.Image, white: float | None, paper: tuple[int, ...]) -> Image.Image:
    """Grey of more than 8 bits, which Pillow would clip, scaled."""
    values = np.asarray(image)
    if image.mode == "F":
        if white is None:
            raise ValueError("floating point pixels have no agreed range: `dataset.white` states the value of white")
        scaled = np.rint(np.nan_to_num(values).clip(0, white) * (255 / white))
    else:
        scaled = values.astype(np.int64) * 256 // (round(65535 if white is None else white) + 1)
    rgb = Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if isinstance(clear := image.info.get("transparency"), int):
        rgb.paste(paper, mask=Image.fromarray(values == clear))
    return rgb


def _opaque(image: Image.Image, paper: tuple[int, ...]) -> Image.Image:
    """A picture with its transparent pixels over a background."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, (*paper, 255)), image)


def _reason(error: Exception, path: str | Path | StoredImage) -> str:
    if isinstance(error, UnidentifiedImageError):
        if begun := _begun(path):
            return begun
        return f"it is not an image of a known format ({', '.join(FORMATS)}){_guess(path)}"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def _opened(path: str | Path | StoredImage) -> BinaryIO:
    return BytesIO(path.read_bytes()) if isinstance(path, StoredImage) else open(path, "rb")


def _begun(path: str | Path | StoredImage) -> str:
    """What is wrong with the header of a file that begins as one of the known formats; empty where it does not."""
    with suppress(OSError), _opened(path) as file:
        start = file.read(26)
        for first, kind, sides in _SIGNATURES:
            if start.startswith(first):
                zero = any(len(start) >= end and not any(start[begin:end]) for begin, end in sides)
                return "it has no pixels" if zero else f"it begins as {kind}, but its header is broken"
    return ""


def _guess(path: str | Path | StoredImage) -> str:
    """What a file of another format is, by its first bytes."""
    try:
        with _opened(path) as file:
            start = file.read(12)
    except OSError:
        return ""
    if not start:
        return ", but empty"
    found = _BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else _FOREIGN.get(start[:4].lower() if start[:1] == b"<" else start[:4])
    return f", but {found}" if found else ""
