"""Which defaults of a method hold for a data set and a pair of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from distillctl.api.specs import MethodSpec, Spec
from distillctl.plugin.registry import load_options

_WARMUP = "warmup_epochs"


@dataclass(frozen=True)
class Pair:
    """All names by which a preset may mean the data set, the teacher and the student; empty where one is not known."""

    dataset: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    student: tuple[str, ...] = ()


def names_of(spec: Spec | None, family: str = "") -> tuple[str, ...]:
    """Names by which a preset may mean a spec."""
    return () if spec is None else tuple(dict.fromkeys(n for n in (family, spec.name, spec.qualified, *spec.aliases) if n))


def preset_values(
    spec: MethodSpec, pair: Pair, stated: Mapping[str, Any], inner: MethodSpec | None, epochs: int = 0
) -> dict[str, tuple[Any, str]]:
    """The values that the presets of a method give, each with its source; later presets win.

    stated: options of the method that the profile has. inner: the method that it wraps. epochs: length of the run, 0 if it is not known;
    a warm-up that is published for a run of another length keeps its share.
    """
    values: dict[str, tuple[Any, str]] = {}
    if _scales(spec.of_epochs, epochs):
        values[_WARMUP] = _share_of(spec.warmup_epochs, spec.of_epochs, epochs, "default")
    for preset in spec.presets:
        fits = _matches(preset.dataset, pair.dataset) and _matches(preset.teacher, pair.teacher) and _matches(preset.student, pair.student)
        if fits and _matches(preset.inner, names_of(inner)) and _has(spec, stated, preset.when):
            source = preset.source or f"preset of {spec.name}"
            values.update({key: (value, source) for key, value in preset.values.items()})
            if _WARMUP in preset.values and _scales(preset.of_epochs, epochs):
                values[_WARMUP] = _share_of(preset.values[_WARMUP], preset.of_epochs, epochs, source)
    return values


def _scales(of_epochs: int, epochs: int) -> bool:
    return 0 < of_epochs != epochs > 0


def _share_of(warmup: Any, of_epochs: int, epochs: int, source: str) -> tuple[float, str]:
    return round(warmup * epochs / of_epochs, 2), f"{source}, {warmup:g} of {of_epochs} epochs"


def _has(spec: MethodSpec, stated: Mapping[str, Any], when: Mapping[str, object]) -> bool:
    """Whether options have these values, as stated or by default."""
    if not when:
        return True
    fields = load_options(spec).model_fields
    return all(stated.get(name, fields[name].get_default()) == value for name, value in when.items())


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return not pattern or any(fnmatchcase(name, pattern) for name in names)
