"""A look at every image file before anything is trained: its header and its end, so that no broken one is found after hours.

Nothing is decoded but files whose end is not what their format says: there only decoding tells. What was found is kept in the
cache under the names, sizes and times of all files, so that a run that goes on does not pay again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from distillctl.api.data import FileImages, Splits, View
from distillctl.data.decode import open_image
from distillctl.data.workers import available_cores
from distillctl.errors import DataError
from distillctl.files import cache_folder, json_bytes, read_json, write_json

_VERSION = 1
_CHUNK = 64  # files in one task of a thread
_SHOWN = 3
_TAIL = 64  # bytes at the end of a file

T = TypeVar("T")


@dataclass(frozen=True)
class Inspection:
    """What is to be said of the files of a data set."""

    notes: tuple[str, ...] = ()


def inspect(splits: Splits) -> Inspection:
    """Looks at the files of all splits, in threads, or remembers what was found; images in memory need it not.

    Raises:
        DataError: files are missing, broken or too large; the message has their number and names the first.
    """
    files = {name: images.paths for name in ("train", "val", "test") if isinstance(images := getattr(splits, name), FileImages)}
    place = _place(files, splits.view)
    if place is not None and (known := _remembered(place)) is not None:
        return known
    found = _inspect(files, splits.view)
    if place is not None:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, asdict(found))
    return found


def file_states(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Size and time of change (in ns) of each file; −1 where it is missing."""
    return _in_threads(_state, paths)


def _inspect(files: Mapping[str, Sequence[Path]], view: View) -> Inspection:
    looks = {name: _in_threads(lambda path: _look(path, view), paths) for name, paths in files.items()}
    broken = {name: [look for look in found if look.problem is not None] for name, found in looks.items()}
    if count := sum(map(len, broken.values())):
        raise _broken(broken, count, sum(map(len, looks.values())))
    return Inspection()


@dataclass(frozen=True)
class _Look:
    """What header and end of a file say."""

    problem: DataError | None = None


def _look(path: Path, view: View) -> _Look:
    try:
        with open_image(path, max_megapixels=view.max_megapixels) as image:
            if not _ends_well(image):
                image.load()
                if _is_filled_up(path, image.format):
                    raise ValueError("its end is missing, with zeros in its place")
    except DataError as error:
        return _Look(problem=error)
    return _Look()


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


def _is_filled_up(path: Path, kind: str | None) -> bool:
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


def _in_threads(work: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """The work on every path, in their order. Threads wait for the disk; they share one interpreter."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(min(16, 4 * available_cores())) as pool:
        tasks = [pool.submit(lambda chunk: [work(path) for path in chunk], chunk) for chunk in chunks]
        try:
            return [one for task in tasks for one in task.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _place(files: Mapping[str, Sequence[Path]], view: View) -> Path | None:
    """The file that remembers an inspection of files in this state."""
    cache = cache_folder()
    if cache is None or not any(files.values()):
        return None
    known_by = hashlib.sha256(json_bytes([_VERSION, view.max_megapixels]))
    for name, paths in files.items():
        known_by.update(f"\n{name}\n".encode())
        for path, state in zip(paths, file_states(paths), strict=True):
            known_by.update(os.fsencode(os.path.abspath(path)) + f"\0{state}\0".encode())
    return cache / "inspected" / f"{known_by.hexdigest()[:24]}.json"


def _remembered(place: Path) -> Inspection | None:
    try:
        value = read_json(place)
        return Inspection(notes=tuple(str(note) for note in value["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
