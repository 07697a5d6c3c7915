"""YOLO's labels: for each image a text file with a line `class x y width height` for each box, centre and size as shares of the image's.

The names of the classes are the lines of `classes.txt`, or `names` of a YAML file. An image without a text file has no boxes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch

from distillctl import DataError, list_images
from distillctl_coco.listed import HUGE, Listed, sentences
from distillctl_coco.places import Place
from distillctl_coco.targets import BoxTargets

_HINT = "a file `classes.txt` has a name in each line"
_FULL = 1 + 1e-6  # shares are rounded
_ITEM = re.compile(r"""(?:(\d+)\s*:\s*)?(?:'([^']*)'|"([^"]*)"|([^'",]+))""")


def read_names(root: Path) -> tuple[str, ...]:
    """The names of the classes, by number.

    Raises:
        distillctl.DataError: there are none, they cannot be read, or one is there twice.
    """
    if (path := root / "classes.txt").is_file():
        names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    else:
        files = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda file: (file.stem != "data", file.name))
        path, names = next(((file, found) for file in files if (found := _yaml_names(file))), (root, []))
    if not names:
        raise DataError(f"nothing in `{root}` tells the names of the classes", hint=_HINT)
    if len(set(names)) != len(names):
        raise DataError(f"`{path}` has the name of a class twice")
    return tuple(names)


def read_yolo(place: Place, names: tuple[str, ...]) -> Listed:
    """The images of a folder, sorted, with their boxes.

    Raises:
        distillctl.DataError: there are no images, or a text file cannot be read.
    """
    files = list_images(place.images)
    rows: list[tuple[int, float, float, float, float, int]] = []
    problems: dict[str, list[object]] = defaultdict(list)
    left_out = 0
    texts = {file.relative_to(place.labels) for file in place.labels.rglob("*.txt") if file.name != "classes.txt"}
    for number, file in enumerate(files):
        name = file.relative_to(place.images).with_suffix(".txt")
        if name not in texts:
            continue
        texts.discard(name)
        for line, text in enumerate(_text(place.labels / name).splitlines(), 1):
            if not text.strip():
                continue
            found = _box(text, len(names))
            if isinstance(found, str):
                problems[found].append(f"{name}:{line}")
                left_out += 1
                continue
            if min(found[1:3]) < 1 - _FULL or max(found[3:]) > _FULL:
                problems["reach beyond the picture, and are cut to it in training"].append(f"{name}:{line}")
            rows.append((number, *found[1:], found[0]))
    problems["belong to no image"] = [*sorted(map(str, texts))]
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    boxes, count = table[:, 1:5], len(files)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).float()
    sizes = torch.ones(count, 2, dtype=torch.int64)
    crowd = torch.zeros(len(table), dtype=torch.bool)
    targets = BoxTargets(torch.arange(count), sizes, table[:, 0].long(), boxes.float(), table[:, 5].long(), crowd, area)
    return Listed(files, targets, tuple(enumerate(names)), left_out, sentences(problems, "line", place.labels))


def _box(text: str, classes: int) -> tuple[int, float, float, float, float] | str:
    """Class, left, top, right and bottom of a line, or what is wrong with it."""
    parts = text.split()
    try:
        label, x, y, width, height = map(float, parts)
    except ValueError:
        return "are not `class x y width height`, and are left out"
    if not all(abs(value) < HUGE for value in (label, x, y, width, height)):
        return "have no box of four finite numbers, and are left out"
    if label != int(label) or not 0 <= label < classes:
        return "are of a class that has no name, and are left out"
    if width <= 0 or height <= 0:
        return "have a box without width or height, and are left out"
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if left >= 1 or top >= 1 or right <= 0 or bottom <= 0:
        return "have a box outside of the picture, and are left out"
    return int(label), left, top, right, bottom


def _yaml_names(path: Path) -> list[str]:
    """The names that a YAML file has under `names`, as a list or by number, in brackets or a line each; empty where it has none.

    Raises:
        distillctl.DataError: they are written otherwise.
    """
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in _text(path).splitlines()]
    start = next((i for i, line in enumerate(lines) if re.match(r"names\s*:", line)), None)
    if start is None:
        return []
    inline = lines[start].partition(":")[2].strip()
    following = lines[start + 1 :]
    if inline[:1] in ("[", "{"):
        inside, closed, _ = " ".join([inline[1:], *following]).partition("]" if inline[0] == "[" else "}")
        items = [part.strip() for part in re.findall(r"""(?:'[^']*'|"[^"]*"|[^,'"])+""", inside) if part.strip()] if closed else [""]
    else:
        end = next((i for i, line in enumerate(following) if line and not line.startswith((" ", "-", "\t"))), len(following))
        items = [line.strip().removeprefix("- ").strip() for line in following[:end] if line.strip()]
        items = [inline] if inline else items
    found = [_ITEM.fullmatch(item) for item in items]
    names = [next(text for text in match.groups()[1:] if text is not None).strip() for match in found if match]
    numbers = [int(match[1]) for match in found if match and match[1] is not None]
    if len(names) != len(items) or numbers not in ([], list(range(len(names)))) or inline[:1] not in ("", "[", "{"):
        raise DataError(f"`names` of `{path}` is not a list of names, or not numbered from 0", hint=_HINT)
    return names


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}") from error
