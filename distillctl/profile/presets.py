"""Which defaults of a method hold for a data set and a pair of models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from distillctl.api.specs import MethodSpec, Spec


@dataclass(frozen=True)
class Pair:
    """All names by which a preset may mean the data set, the teacher and the student; empty where one is not known."""

    dataset: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    student: tuple[str, ...] = ()


def names_of(spec: Spec | None, family: str = "") -> tuple[str, ...]:
    """Names by which a preset may mean a spec."""
    return () if spec is None else tuple(dict.fromkeys(n for n in (family, spec.name, spec.qualified, *spec.aliases) if n))


def preset_values(spec: MethodSpec, pair: Pair) -> dict[str, tuple[Any, str]]:
    """The values that the presets of a method give for this pair, each with its source; later presets win."""
    values: dict[str, tuple[Any, str]] = {}
    for preset in spec.presets:
        if _matches(preset.dataset, pair.dataset) and _matches(preset.teacher, pair.teacher) and _matches(preset.student, pair.student):
            values.update({key: (value, preset.source or f"preset of {spec.name}") for key, value in preset.values.items()})
    return values


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return not pattern or any(fnmatchcase(name, pattern) for name in names)
