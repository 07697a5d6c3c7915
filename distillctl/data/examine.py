"""Every image file decoded, in worker processes: what is broken and how, and what stands for the pixels of the others.

Two pictures are the same if they have the same decoded pixels, so that neither a name, nor EXIF data, nor a lossless format hides a copy;
one that was compressed again is another. Grey of more than 8 bits counts by the bytes of its file, since its pixels depend on `white`.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from distillctl.api.data import StoredImage, View
from distillctl.data.batches import Workers
from distillctl.data.decode import is_deep, open_image, orientation, read_image
from distillctl.data.inspection import require_end
from distillctl.data.workers import decoded, no_advice
from distillctl.errors import DataError

KINDS = ("missing", "dead link", "folder", "unreadable", "empty", "not an image", "no pixels", "too large", "cut off", "damaged")
"""How a file can be broken."""
OF_THE_SYSTEM = ("missing", "dead link", "folder", "unreadable")
"""Those that may change although size and time of the file stay."""
_ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "MPO": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
    "PNG": ("png",),
    "BMP": ("bmp", "dib"),
    "GIF": ("gif",),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
}


@dataclass(frozen=True)
class Finding:
    """What decoding one file gave.

    kind: one of `KINDS`, or empty where nothing is broken. problem: in a sentence.
    width, height: in pixels, upright. digest: stands for the pixels.
    remarks: what is odd about a file that is good: `ending`, `exif`, `animated`, `one colour`.
    """

    kind: str = ""
    problem: str = ""
    width: int = 0
    height: int = 0
    digest: str = ""
    remarks: tuple[str, ...] = ()


def examine(files: Mapping[str, Sequence[Path | StoredImage]], view: View, workers: Workers = "auto") -> dict[str, list[Finding]]:
    """Decodes the files of every split, as training would; findings are in the order of the files.

    workers: processes; `auto` takes every core, at most 16.

    Raises:
        RunError: a worker process died.
    """
    paths = [path if isinstance(path, StoredImage) else str(path) for part in files.values() for path in part]
    found = decoded(_Files(paths, view), len(paths), workers, None)
    return {name: [next(found) for _ in part] for name, part in files.items()}


def examine_file(path: Path | StoredImage, view: View) -> Finding:
    """Decodes one file."""
    with no_advice():
        return _finding(path, view)


def _finding(path: Path | StoredImage, view: View) -> Finding:
    try:
        with open_image(path, max_megapixels=view.max_megapixels) as image:
            require_end(image, path)
            if image.format == "PNG":
                _require_checksums(path)
            remarks = _remarks(image, path)
            deep, real = is_deep(image), image.mode == "F"
        white = 1.0 if real and view.white is None else view.white  # it is measured before training
        pixels = read_image(path, **{**view.reading, "white": white}).permute(1, 2, 0).numpy()
        content = path.read_bytes() if deep else pixels.tobytes()
    except DataError as error:
        told = error.problems[0].message.removeprefix("the image ")
        return Finding(_kind(error.__cause__, told, path), told)
    except OSError as error:  # between the two looks
        return Finding("unreadable", f"`{path}` cannot be read: {error.strerror}")
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(content, digest_size=16, person=b"%dx%d" % (width, height)).hexdigest()
    if (pixels == pixels[:1, :1]).all():
        remarks = (*remarks, "one colour")
    return Finding(width=width, height=height, digest=digest, remarks=remarks)


def _require_checksums(path: Path | StoredImage) -> None:
    """Compares the checksums in a PNG file with its bytes, which Pillow does for its header alone; those of remarks do not matter.

    Raises:
        ValueError: the bytes are not those that were written.
    """
    data = path.read_bytes()
    position, kind = 8, b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if kind[:1].isupper() and data[end : end + 4] != struct.pack(">I", zlib.crc32(data[position + 4 : end])):
            raise ValueError(f"the checksum of its part {kind.decode('latin-1')} is wrong")
        position = end + 4


def _kind(cause: BaseException | None, told: str, path: Path | StoredImage) -> str:
    """Which of `KINDS` it is, by what Pillow or the system raised."""
    if cause is None:
        return "too large"
    if isinstance(cause, FileNotFoundError):
        return "dead link" if os.path.islink(str(path)) else "missing"
    if os.path.isdir(str(path)):
        return "folder"
    if isinstance(cause, OSError) and cause.errno is not None:
        return "unreadable"
    if (not path.read_bytes()) if isinstance(path, StoredImage) else os.path.getsize(path) == 0:
        return "empty"
    if told.endswith("it has no pixels"):
        return "no pixels"
    if isinstance(cause, UnidentifiedImageError) and "not an image of a known format" in told:
        return "not an image"
    return "cut off" if any(word in told for word in ("truncated", "Truncated", "end is missing")) else "damaged"


def _remarks(image: Image.Image, path: Path | StoredImage) -> tuple[str, ...]:
    known = _ENDINGS.get(image.format or "", ())
    ending = "" if isinstance(path, StoredImage) else path.suffix.lower().removeprefix(".")
    return tuple(
        name
        for name, true in (
            ("ending", bool(ending) and ending not in known),
            ("exif", "exif" in image.info and orientation(image) is None),
            ("animated", image.format != "MPO" and getattr(image, "n_frames", 1) > 1),
        )
        if true
    )


class _Files(Dataset[Finding]):
    def __init__(self, paths: Sequence[str | StoredImage], view: View) -> None:
        self._paths, self._view = paths, view

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Finding:
        path = self._paths[index]
        return examine_file(Path(path) if isinstance(path, str) else path, self._view)
