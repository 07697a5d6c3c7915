"""The part of the contract for methods that looks at what a plugin declares: spec, options, README."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from distillctl.api.method import Method, TemperatureMethod, Wrapper
from distillctl.api.options import Options
from distillctl.api.specs import MethodSpec, Preset
from distillctl.plugin.citation import bibtex
from distillctl.plugin.registry import load
from distillctl.profile.describe import is_table
from distillctl.profile.schema import MethodTable
from distillctl.testing.cases import MethodCase, options_of
from distillctl.testing.docs import options_table, parts_of
from distillctl.testing.light_imports import complaint

_CORE = frozenset(MethodTable.model_fields)


class DeclarationChecks(MethodCase):
    """Tests of what the plugin declares.

    plugin_module: the entry-point module; empty means `plugin` beside the implementation.
    has_readme: False for methods that ship with distillctl.
    """

    plugin_module: ClassVar[str] = ""
    has_readme: ClassVar[bool] = True

    @property
    def _plugin(self) -> str:
        return self.plugin_module or f"{self.spec.implementation.partition(':')[0].rpartition('.')[0]}.plugin"

    def test_spec_agrees_with_the_class(self) -> None:
        """The implementation is a documented method of the kind that the spec says."""
        implementation: type[Method] = load(self.spec.implementation, self.spec.name)
        assert issubclass(implementation, Method)
        wraps = issubclass(implementation, Wrapper), self.spec.kind == "wrapper", bool(self.spec.inner)
        assert len(set(wraps)) == 1, f"a `Wrapper`, the kind `wrapper`, an inner method: {wraps}"
        assert issubclass(implementation, TemperatureMethod) == self.spec.takes_temperature, "`takes_temperature` and the class disagree"
        assert (implementation.head not in (Method.head, Wrapper.head)) == self.spec.gives_head, "`gives_head` tells who overrides `head`"
        assert implementation.__doc__ not in (None, Method.__doc__), "the class needs a docstring with formula, reduction and source"
        assert self.spec.formula, "show NAME prints the formula"
        assert self.spec.paper, "name the paper with its arXiv id"
        assert "\n" not in self.spec.summary

    def test_paper_can_be_cited(self) -> None:
        """Where the spec has a title, `show NAME --bibtex` prints an entry: with all authors, the surnames being those of `paper`."""
        if not (self.spec.title or self.spec.authors or self.spec.venue):
            return
        assert bibtex(self.spec), "BibTeX needs `title`, `authors`, and a year in `paper`"
        surnames = [author.partition(",")[0] for author in self.spec.authors.split(" and ")]
        assert all(", " in author for author in self.spec.authors.split(" and ")), "authors as BibTeX has them: `Hinton, Geoffrey and …`"
        assert self.spec.paper.startswith(f"{', '.join(surnames)} "), f"`paper` names others than {surnames}"

    def test_plugin_module_is_light_and_registers_the_spec(self) -> None:
        """Listing methods imports neither torch nor pydantic; options load without torch."""
        others = [(case()._plugin, case.spec.name) for case in _subclasses(DeclarationChecks) if hasattr(case, "spec")]
        assert not complaint(self._plugin, self.spec.name, others), complaint(self._plugin, self.spec.name)

    def test_options_are_described_and_strict(self) -> None:
        """Every option has a description, the options of the case are valid, unknown keys are refused."""
        model = type(options_of(self.spec, **self.options))
        assert issubclass(model, Options)
        missing = [
            f"{table.__name__}.{name}" for table in _tables(model) for name, field in table.model_fields.items() if not field.description
        ]
        assert not missing, f"options without a description: {missing}"
        assert not _CORE & set(model.model_fields), "these keys belong to every [method] table"
        with pytest.raises(ValidationError, match="no_such_option"):
            options_of(self.spec, **{**self.options, "no_such_option": 1})

    def test_presets_are_valid(self) -> None:
        """Every preset has a source, and values that the table of the method takes."""
        for preset in self.spec.presets:
            assert preset.source, f"a preset without a source: {preset}"
            assert preset.values, preset
            ours = {name: value for name, value in preset.values.items() if not name.startswith("inner.")}
            inner = {name.removeprefix("inner."): value for name, value in preset.values.items() if name not in ours}
            assert preset.inner or not inner, f"a preset for the method within names it by `inner`: {preset}"
            table = {"name": preset.inner, **inner}
            _validate(self.spec, {"name": self.spec.name, **preset.when, **ours, **({"inner": table} if inner else {})}, self.inner_spec)
            assert not preset.inner or self.spec.inner, "only wrappers wrap"
            assert preset != Preset(values=preset.values, source=preset.source), "a preset without a condition is a default"

    def test_readme_has_the_options_and_valid_examples(self) -> None:
        """The README above the folder of the tests holds the table of options as the code has it, and valid `[method]` tables."""
        if not self.has_readme:
            assert self.spec.implementation.startswith("distillctl.builtin."), "a plugin needs a README"
            return
        text = Path(inspect.getfile(type(self))).parents[1].joinpath("README.md").read_text(encoding="utf-8")
        table = options_table(self.spec)
        assert table in text, f"the README needs this table:\n{table}"
        examples = [t for t in _method_tables(text) if t.get("name") == self.spec.name]
        assert examples, f'the README needs a TOML block with a [method] table with name = "{self.spec.name}"'
        for example in examples:
            _validate(self.spec, example, self.inner_spec)


def _subclasses(base: type[DeclarationChecks]) -> Iterator[type[DeclarationChecks]]:
    """All classes below one, however deep."""
    for one in base.__subclasses__():
        yield one
        yield from _subclasses(one)


def _tables(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all models within its fields."""
    yield model
    for field in model.model_fields.values():
        for part, _ in parts_of(field.annotation):
            if is_table(part):
                yield from _tables(part)


def _validate(spec: MethodSpec, table: dict[str, Any], inner_spec: MethodSpec | None) -> None:
    """Raises pydantic's error if a `[method]` table has wrong keys or values."""
    MethodTable.model_validate({key: value for key, value in table.items() if key in _CORE})
    own = {key: value for key, value in table.items() if key not in _CORE}
    inner = own.pop("inner", None) if spec.kind == "wrapper" else None
    options_of(spec, **own)
    if inner is not None and inner_spec is not None and inner.get("name", spec.inner) == inner_spec.name:
        _validate(inner_spec, {"name": inner_spec.name, **inner}, None)


def _method_tables(markdown: str) -> Iterator[dict[str, Any]]:
    """All `[method]` tables in the TOML blocks of a Markdown text."""
    for block in markdown.split("```toml\n")[1:]:
        tables = tomllib.loads(block.partition("```")[0]).get("method", [])
        yield from tables if isinstance(tables, list) else [tables]
