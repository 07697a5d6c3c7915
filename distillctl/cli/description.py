"""One method, model, data set or optimizer as plain data: its options, and a table to paste into a profile."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from distillctl.api.specs import MethodSpec, ModelSpec, Spec
from distillctl.plugin.catalog import Catalog
from distillctl.plugin.citation import bibtex

SECTIONS = {"method": "method", "model": "student", "data set": "dataset", "optimizer": "optimizer"}


def description(catalog: Catalog[Any], spec: Spec) -> dict[str, Any]:
    """One object as plain data."""
    plugin = catalog.plugin(spec)
    data: dict[str, Any] = {
        "name": catalog.shown_name(spec),
        "qualified": spec.qualified,
        "kind": catalog.kind,
        "summary": spec.summary,
        "paper": spec.paper,
        "bibtex": bibtex(spec),
        "aliases": list(spec.aliases),
        "package": plugin.package,
        "version": plugin.version,
        "options": option_rows(spec),
    }
    if isinstance(spec, MethodSpec):
        data |= {
            "method_kind": spec.kind,
            "formula": spec.formula,
            "needs_teacher": spec.needs_teacher,
            "wraps": spec.inner,
            "presets": [
                {
                    "dataset": p.dataset,
                    "teacher": p.teacher,
                    "student": p.student,
                    "when": {**p.when, **({"inner": p.inner} if p.inner else {})},
                    "values": dict(p.values),
                    "of_epochs": p.of_epochs,
                    "source": p.source,
                }
                for p in spec.presets
            ],
        }
    if isinstance(spec, ModelSpec):
        data |= {
            "stages": dict(spec.stages),
            "classifier": spec.classifier,
            "weights": list(spec.weights),
            "weights_input": {name: asdict(seen) for name, seen in spec.weights_input.items()},
            "input_size": spec.input_size,
            "parameters": spec.parameters or None,
            "classes": spec.classes if spec.parameters else None,
        }
    data["example"] = example(catalog.kind, spec, catalog.shown_name(spec))
    return data


def option_rows(spec: Spec) -> list[dict[str, Any]]:
    """The options of a spec, and for methods the keys that every method table has: name, type, default, bounds, description, source."""
    from distillctl.profile.describe import bounds_of, type_of

    return [
        {
            "name": name,
            "type": type_of(field.annotation, field.metadata),
            "default": default,
            "required": field.is_required() and default is None,
            "bounds": bounds_of(field.annotation, field.metadata),
            "description": " ".join((field.description or "").split()),
            "default_from": "" if default is None else _default_from(spec, name),
        }
        for name, field, default in _fields(spec)
    ]


def example(kind: str, spec: Spec, shown_name: str) -> str:
    """A table to paste into a profile, valid as it is but for the paths in it."""
    from distillctl.profile.writing import value_text

    section = SECTIONS[kind]
    lines = [f"[{section}]", f"name = {value_text(shown_name)}"]
    for name, field, default in _fields(spec):
        if default is None and not field.is_required():
            continue
        lines.append(f"{name} = {value_text(_placeholder(field) if default is None else default)}")
    if isinstance(spec, MethodSpec) and spec.inner:
        lines += ["", f"[{section}.inner]", f"name = {value_text(spec.inner)}"]
    return "\n".join(lines) + "\n"


def _fields(spec: Spec) -> list[tuple[str, Any, Any]]:
    """Name, pydantic field, and default as TOML data (None: there is none)."""
    from distillctl.plugin.registry import load_options
    from distillctl.profile.schema import MethodTable
    from distillctl.profile.writing import plain

    fields: list[tuple[str, Any, Any]] = []
    if isinstance(spec, MethodSpec):
        for name in ("weight", "task_weight", "warmup_epochs"):
            fields.append((name, MethodTable.model_fields[name], float(getattr(spec, name))))
    if spec.options:
        for name, field in load_options(spec).model_fields.items():
            fields.append((name, field, None if field.is_required() else plain(field.get_default(call_default_factory=True))))
    return fields


def _default_from(spec: Spec, name: str) -> str:
    """`package`, and the sources of the presets that have another default for certain data or pairs."""
    presets = spec.presets if isinstance(spec, MethodSpec) else ()
    sources = dict.fromkeys(p.source for p in presets if name in p.values and p.source)
    of_epochs = spec.of_epochs if isinstance(spec, MethodSpec) and name == "warmup_epochs" else 0
    return "; ".join([f"package, of {of_epochs} epochs" if of_epochs else "package", *sources])


def _placeholder(field: Any) -> Any:
    """A value of the right type for an option that has no default."""
    from pathlib import Path

    from distillctl.profile.describe import branches, choices_of

    annotation, metadata = branches(field.annotation, field.metadata)[0]
    if choices := choices_of(annotation):
        return choices[0]
    if annotation in (int, float):
        lowest = next((getattr(m, k) for m in metadata for k in ("ge", "gt") if getattr(m, k, None) is not None), 1)
        return annotation(lowest + 1 if annotation is int else lowest + 0.5)
    if annotation is bool:
        return False
    return "path/to/it" if annotation is Path else [] if getattr(annotation, "__origin__", None) is list else "..."
