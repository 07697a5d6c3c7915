"""A look at every image file before anything is trained: its header and its end, so that no broken one is found after hours.

Nothing is decoded but files whose end is not what their format says: there only decoding tells. What was found is kept in the
cache under the names, sizes and times of all files, so that a run that goes on does not pay again.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from distillctl.api.data import ArrayImages, Splits, StoredImage, StoredPaths, View
from distillctl.data.decode import ON_THEIR_SIDE, TOLD_LATE, is_deep, open_image, orientation, read_image
from distillctl.data.workers import available_cores
from distillctl.errors import DataError
from distillctl.files import cache_folder, json_bytes, read_json, write_json
from distillctl.text import some

_VERSION = 1
_CHUNK = 64  # files in one task of a thread
_SHOWN = 3
_SAMPLE = 32  # images whose pixels are looked at
_FEW = 10  # one of so many may have one colour
_DARK = 64
_TAKEN = "is taken as white"
_TAIL = 64  # bytes at the end of a file

WHITES = (1, 255, 1023, 4095, 16383, 65535, 2**31 - 1)
"""What may be white in grey of more than 8 bits; 1 in floating point alone."""

T = TypeVar("T")
Paths = Sequence[Path | StoredImage]


@dataclass(frozen=True)
class Inspection:
    """What was found in the files of a data set.

    white: of their grey images of more than 8 bits; None where there are none.
    notes: what is to be said.
    """

    white: float | None = None
    notes: tuple[str, ...] = ()


def inspect(splits: Splits, *, measure: bool = True, white: float | None = None) -> Inspection:
    """Looks at the files of all splits, in threads, or remembers what was found; images in memory need it not.

    Args:
        splits: the data set; a white that its view states is taken.
        measure: whether white may be measured; otherwise it is what `read_image` takes by itself.
        white: what was taken when the run began, if it goes on; then nothing is said of it.

    Raises:
        DataError: files are missing, broken, too large, or not of the size that is stated (`FileImages.sizes`); the message has their
            number and names the first.
    """
    found_in = {name: images for name in ("train", "val", "test") if (images := getattr(splits, name)) is not None}
    files = {name: images.paths for name, images in found_in.items() if not isinstance(images, ArrayImages)}
    sizes = {name: stated for name, images in found_in.items() if (stated := getattr(images, "sizes", None)) is not None}
    view = splits.view if white is None or splits.view.white is not None else replace(splits.view, white=white)
    places = _places(files, splits.view, view, measure, sizes)
    found = next((known for place in places if (known := _remembered(place)) is not None), None)
    if found is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of files that are told here or are good
            found = _inspect(files, view, measure, sizes)
        for place in places[-1:]:
            with suppress(OSError):
                place.parent.mkdir(parents=True, exist_ok=True)
                write_json(place, asdict(found))
    if found.white is not None and view.white is not None:
        return Inspection(view.white, tuple(note for note in found.notes if _TAKEN not in note))
    return found


def file_states(paths: Paths) -> list[tuple[int, int]]:
    """Size and time of change (in ns) of each file; −1 where it is missing. Of stored images, those of all files of their store."""
    if isinstance(paths, StoredPaths):
        states = [_state(path) for path in paths.store.files]
        return [(sum(size for size, _ in states), max((time_ns for _, time_ns in states), default=-1))] * len(paths)
    return _in_threads(_state, paths)


def files_digest(what: object, files: Mapping[str, Paths]) -> str:
    """24 hex digits that stand for files with their places, sizes and times of change, and for `what` is done with them."""
    known_by = hashlib.sha256(json_bytes(what))
    for name, paths in files.items():
        known_by.update(f"\n{name}\n".encode())
        for path, state in zip(paths, file_states(paths), strict=True):
            known_by.update(os.fsencode(os.path.abspath(str(path))) + f"\0{state}\0".encode())
    return known_by.hexdigest()[:24]


def _inspect(files: Mapping[str, Paths], view: View, measure: bool, sizes: Mapping[str, Tensor]) -> Inspection:
    looks = {
        name: _in_threads(lambda pair: _look(pair[0], view, pair[1]), list(zip(paths, sizes[name].tolist(), strict=True)))
        if name in sizes
        else _in_threads(lambda path: _look(path, view), paths)
        for name, paths in files.items()
    }
    broken = {name: [look for look in found if look.problem is not None] for name, found in looks.items()}
    if count := sum(map(len, broken.values())):
        raise _broken(broken, count, sum(map(len, looks.values())))
    every = [look for found in looks.values() for look in found]
    training = looks.get("train") or every
    notes: list[str] = []
    if odd := [look.path for look in every if look.odd_exif]:
        notes.append(f"{_counted(odd)} an EXIF block that cannot be read, taken as not rotated: {_named(odd)}")
    deep = [look.path for look in training if look.deep] or [look.path for look in every if look.deep]
    white = view.white
    if deep and white is None and measure:
        white = _measured(deep, notes)
    elif deep and white is None:
        notes.append(f"{_counted(deep)} grey of more than 8 bits: 65535 {_TAKEN}")
    view = replace(view, white=white)
    notes += _dark([look.path for look in training if look.wide], view)
    notes += _constant([look.path for look in training], view)
    return Inspection(white if deep else None, tuple(notes))


def _measured(paths: Paths, notes: list[str]) -> float:
    """The smallest of the usual whites that holds the largest value of these images.

    Raises:
        DataError: none does.
    """
    ranges = _in_threads(_range, paths)
    least, most = min(low for low, _, _ in ranges), max(high for _, high, _ in ranges)
    white = next((w for w in WHITES[0 if all(real for *_, real in ranges) else 1 :] if most <= w), None)
    if white is None:
        raise DataError(f"grey images have values up to {most:g}, beyond every usual white", hint="state it: `dataset.white = …`")
    below = "; values below 0 become black" if least < 0 else ""
    notes.append(
        f"{_counted(paths)} grey of more than 8 bits, with values up to {most:.10g}: {white:.10g} {_TAKEN} "
        f"(`dataset.white` states another){below}"
    )
    return float(white)


def _range(path: Path | StoredImage) -> tuple[float, float, bool]:
    """Smallest and largest value of a picture, and whether they are of floating point."""
    with open_image(path, max_megapixels=math.inf) as image:
        values = np.asarray(image)
        real = image.mode == "F"
    if real and not np.isfinite(values).all():
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max()), real) if values.size else (0.0, 0.0, real)


def _dark(paths: Paths, view: View) -> list[str]:
    """A warning if colours of 16 bits, of which the upper eight are read, have nothing in them."""
    highest = max((most for most, _ in _sampled(paths, view)), default=255)
    if highest >= _DARK:
        return []
    return [
        f"WARNING: {_counted(paths)} colours of 16 bits that are nearly black: of 65535, they reach {highest * 256 + 255} at most; "
        f"convert them to 8 bits: {_named(paths)}"
    ]


def _constant(paths: Paths, view: View) -> list[str]:
    """A warning if many images have one colour."""
    sample = _sampled(paths, view)
    blank = sum(constant for _, constant in sample)
    if blank * _FEW <= len(sample):
        return []
    return [f"WARNING: {blank} of {len(sample)} training images that were looked at have the same colour everywhere"]


def _sampled(paths: Paths, view: View) -> list[tuple[int, bool]]:
    """Of some images, evenly spread: their largest value, and whether all pixels are the same."""

    def work(path: Path | StoredImage) -> tuple[int, bool]:
        pixels = read_image(path, **view.reading).numpy()  # torch would start threads of its own in each of ours
        return int(pixels.max()), bool((pixels == pixels[:, :1, :1]).all())

    return _in_threads(work, paths[:: max(1, len(paths) // _SAMPLE)][:_SAMPLE])


def _counted(paths: Paths) -> str:
    return f"{len(paths)} image{'s have' if len(paths) > 1 else ' has'}"


def _named(paths: Paths) -> str:
    return some([str(path) for path in paths])


@dataclass(frozen=True)
class _Look:
    """What header and end of a file say.

    problem: why it cannot be used.
    deep: grey of more than 8 bits. wide: colours of more than 8 bits.
    odd_exif: its EXIF block cannot be read.
    """

    path: Path | StoredImage
    problem: DataError | None = None
    deep: bool = False
    wide: bool = False
    odd_exif: bool = False


def _look(path: Path | StoredImage, view: View, stated: Sequence[int] | None = None) -> _Look:
    """stated: height and width that the upright picture should have."""
    try:
        with open_image(path, max_megapixels=view.max_megapixels) as image:
            look = _Look(
                path,
                deep=is_deep(image),
                wide=not is_deep(image) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())[:1]),
                odd_exif="exif" in image.info and orientation(image) is None,
            )
            require_end(image, path)
            if stated is not None:
                _require_size(image, path, stated)
    except DataError as error:
        return _Look(path, problem=error)
    return look


def _require_size(image: Image.Image, path: Path | StoredImage, stated: Sequence[int]) -> None:
    found = image.size if (orientation(image) or 1) in ON_THEIR_SIDE else image.size[::-1]
    if list(found) == list(stated) or (image.format in TOLD_LATE and sorted(found) == sorted(stated)):
        return
    raise DataError(
        f"the image `{path}` has {found[1]}×{found[0]} pixels when it stands upright, and its annotation says {stated[1]}×{stated[0]}",
        hint="an image that was resized or turned needs another annotation",
    )


def require_end(image: Image.Image, path: Path | StoredImage) -> None:
    """Decodes a picture whose file has not the end of its format.

    Raises:
        OSError, ValueError: its end is missing.
    """
    if not _ends_well(image):
        image.load()
        if _is_filled_up(path, image.format):
            raise ValueError("its end is missing, with zeros in its place")


def _broken(broken: Mapping[str, Sequence[_Look]], count: int, total: int) -> DataError:
    problems = [look.problem.problems[0] for looks in broken.values() for look in looks if look.problem is not None]
    splits = ", ".join(f"{name} {len(looks)}" for name, looks in broken.items() if looks)
    shown = "; ".join(problem.message.removeprefix("the image ") for problem in problems[:_SHOWN])
    more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
    hint = next((problem.hint for problem in problems if problem.hint), "")
    return DataError(
        f"{count} of {total} images cannot be used ({splits}): {shown}{more}",
        hint=hint or "nothing has been trained yet: repair these files, or move them away",
    )


def _ends_well(image: Image.Image) -> bool:
    """Whether the end of a file is that of its format, or lies where its header says; if not, only decoding tells what is lost."""
    file = getattr(image, "fp", None)
    if file is None:
        return False
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    file.seek(position)
    if not tail.strip(b"\0"):  # a download that broke off; uncompressed pixels may be black
        return image.format in ("BMP", "PPM")
    match image.format:
        case "JPEG" | "MPO":
            return b"\xff\xd9" in tail
        case "PNG":
            return b"IEND\xaeB`\x82" in tail
        case "GIF":
            return bool(tail.rstrip(b"\0").endswith(b";") and tail.rstrip(b"\0")[-2:-1] == b"\0")
        case "WEBP":
            file.seek(4)
            claimed = int.from_bytes(file.read(4), "little") + 8
            file.seek(position)
            return bool(claimed <= size)
    end = _end_of_pixels(image)
    return end is not None and end <= size


def _is_filled_up(path: Path | StoredImage, kind: str | None) -> bool:
    """Whether a JPEG or WEBP file has zeros for its end, which their decoders take for pixels."""
    content = path.read_bytes() if kind in ("JPEG", "MPO", "WEBP") else b""
    if kind == "WEBP":
        return content[: int.from_bytes(content[4:8], "little") + 8].endswith(bytes(_TAIL))
    return content.endswith(bytes(_TAIL)) and not content.rstrip(b"\0").endswith(b"\xff\xd9")


_BITS = {"1": 1, "1;I": 1, "L": 8, "I;16B": 16, "RGB": 24}
"""Of a pixel in uncompressed files, by Pillow's names."""


def _end_of_pixels(image: Any) -> int | None:
    """Where the pixels of a BMP, PPM or TIFF file end, as its header says; None where it does not say."""
    if image.format == "TIFF":
        offsets, lengths = (image.tag_v2.get(a) or image.tag_v2.get(b) or () for a, b in ((273, 324), (279, 325)))
        return max((o + n for o, n in zip(offsets, lengths, strict=False)), default=None)
    if len(image.tile) != 1 or image.tile[0][0] != "raw":
        return None
    _, (_, _, width, height), offset, arguments = image.tile[0]
    mode, stride = arguments[:2] if isinstance(arguments, tuple) else (arguments, 0)
    if not stride and mode not in _BITS:
        return None
    return int(offset + height * (stride or -(-width * _BITS[mode] // 8)))


def _state(path: Path) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _in_threads(work: Callable[[Any], T], paths: Sequence[Any]) -> list[T]:
    """The work on every path, in their order. Threads wait for the disk; they share one interpreter."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(min(16, 4 * available_cores())) as pool:
        tasks = [pool.submit(lambda chunk: [work(path) for path in chunk], chunk) for chunk in chunks]
        try:
            return [one for task in tasks for one in task.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _places(files: Mapping[str, Paths], stated: View, view: View, measure: bool, sizes: Mapping[str, Tensor]) -> list[Path]:
    """Files that may remember an inspection of files in this state: as a new run makes it, and as one that goes on with its white."""
    cache = cache_folder()
    if cache is None or not any(files.values()):
        return []
    pictures = [[split, hashlib.sha256(part.contiguous().numpy().data).hexdigest()] for split, part in sizes.items()]
    name = files_digest([_VERSION, stated.reading, measure, *pictures], files)
    given = [] if view == stated else [f"{name}-{view.white}.json"]
    return [cache / "inspected" / file for file in (f"{name}.json", *given)]


def _remembered(place: Path) -> Inspection | None:
    try:
        value = read_json(place)
        white = None if value["white"] is None else float(value["white"])
        return Inspection(white, tuple(str(note) for note in value["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
