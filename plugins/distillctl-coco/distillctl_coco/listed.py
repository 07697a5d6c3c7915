"""What a reader of labels gives, and how it tells of those that it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillctl_coco.targets import BoxTargets

_SHOWN = 10
HUGE = 1e9
"""A coordinate beyond is taken for one that is not finite."""


@dataclass(frozen=True)
class Listed:
    """One split.

    files: of the images. targets: their boxes, labelled by the position of their class.
    categories: number and name of each class, in the order of the numbers.
    left_out: how many annotations are not among the boxes.
    remarks: what is odd, in sentences.
    """

    files: Sequence[Path]
    targets: BoxTargets
    categories: tuple[tuple[int, str], ...]
    left_out: int = 0
    remarks: tuple[str, ...] = ()


def sentences(problems: Mapping[str, Sequence[object]], noun: str, place: Path) -> tuple[str, ...]:
    """For each problem how many annotations have it, and the first of them. noun: what each is called in `place`."""
    return tuple(f"{len(found)} of `{place}` {words}: {noun} {_first(found)}" for words, found in problems.items() if found)


def _first(found: Sequence[object]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(map(str, found[:_SHOWN])) + more
