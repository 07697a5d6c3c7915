"""One check of a profile, and what the readers of all its tables share: a table is checked against its model, and each value recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distillctl.api.options import Options
from distillctl.api.specs import Spec
from distillctl.errors import PluginError
from distillctl.plugin.catalog import Catalog
from distillctl.plugin.registry import Registry, load_options
from distillctl.profile.describe import complaints
from distillctl.profile.document import Document, dotted
from distillctl.profile.problems import Problems, bounded
from distillctl.profile.toml_file import Key
from distillctl.profile.writing import plain

Data = dict[str, Any]
"""A checked table as TOML data."""

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Check:
    """One check of a document. Each table that is read adds its problems, its values and their origins; nothing else changes.

    trusted: the document was checked before (a run's `resolved.toml`): files that it names need not be there any more.
    resolved, origins: as a `Profile` has them; complete if no problem was noted.
    """

    document: Document
    registry: Registry
    problems: Problems
    trusted: bool = False
    resolved: Data = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def complain(self, message: str, key: Key = (), hint: str = "") -> None:
        """Notes a problem at a key, or at the file as a whole.

        Raises:
            ProfileError: there are so many problems already that the rest is not looked for.
        """
        self.problems.add(bounded(message, self.document.where(key), hint))

    def no_effect(self, key: Key, why: str, because: Key = (), hint: str = "") -> None:
        """Notes that a stated key does nothing; not if the command line made it so and the file alone states the key."""
        if because and self.document.from_command_line(because) and not self.document.from_command_line(key):
            return
        self.complain(f"`{dotted(key)}` has no effect {why}", key, hint)

    def stated(self, name: str, example: str = "") -> Data | None:
        """What a top-level table states; None, with a problem noted, if it is not a table, or is missing and must not be.

        example: how one is written, where there must be one.
        """
        value = self.document.data.get(name, None if example else {})
        if isinstance(value, dict):
            return value
        if name in self.document.data:
            self.complain(f"`{name}` must be a table, [{name}]", (name,))
        else:
            self.complain(f"the table [{name}] is missing", (), example)
        return None

    def several(self, name: str, header: str, most: int) -> list[tuple[Key, Data]] | None:
        """What a table or an array of tables states, each with its place; None, with a problem noted, if it is something else.

        header: how one is written. most: so many tables there may be.
        """
        value = self.document.data.get(name, [])
        if isinstance(value, dict):
            return [((name,), value)]
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            hint = f'write `{header}` and below it `name = "{value}"`' if isinstance(value, str) else ""
            self.complain(f"`{name}` must be a table, [{name}], or several, [[{name}]]", (name,), hint)
            return None
        if len(value) > most:
            self.complain(f"there are {len(value)} [[{name}]] tables, more than {most}", (name, most))
            return None
        return [((name, number), table) for number, table in enumerate(value)]

    def table(self, model: type[M], values: Mapping[str, Any], key: Key, **words: Any) -> M | None:
        """The values as an instance of the model; None, with every problem noted, if they do not fit.

        key: where the table stands. words: as `describe.complaints` has them.
        """
        try:
            return model.model_validate(dict(values))
        except ValidationError as error:
            for complaint in complaints(error.errors(include_url=False), model, values, key, **words):
                self.complain(*complaint)
            return None

    def find(self, catalog: Catalog[S], key: Key, name: Any) -> S | None:
        """The spec of a name; None, with a problem noted, if there is none. A name that is not a string is noted elsewhere."""
        if not isinstance(name, str):
            return None
        try:
            return catalog.get(name)
        except PluginError as error:
            self.complain(error.problems[0].message, key, error.problems[0].hint)
            return None

    def options(self, spec: Spec, kind: str, values: Mapping[str, Any], key: Key, core: type[BaseModel]) -> Options | None:
        """A plugin's own keys, checked against its options; None, with problems noted, if they do not fit."""
        try:
            model = load_options(spec)
        except PluginError as error:
            self.complain(error.problems[0].message, (*key, "name"), error.problems[0].hint)
            return None
        also = [name for name in core.model_fields if name not in model.model_fields]
        command = f"`distillctl show {spec.qualified}`"
        return self.table(model, values, key, subject=f"{kind} `{spec.name}`", command=command, also=also)

    def plugin_table(
        self, catalog: Catalog[S], core: type[M], values: Mapping[str, Any], key: Key
    ) -> tuple[M | None, S | None, Options | None]:
        """A plugin's table: the core's keys, the spec that `name` means, and the plugin's own keys; None for what is wrong."""
        stated, own = split(values, core)
        table = self.table(core, stated, key)
        spec = self.find(catalog, (*key, "name"), stated.get("name", core.model_fields["name"].default))
        return table, spec, self.options(spec, catalog.kind, own, key, core) if spec else None

    def record(
        self,
        key: Key,
        parts: Collection[BaseModel],
        stated: Mapping[str, Any],
        spec: Spec | None = None,
        *,
        presets: Mapping[str, tuple[Any, str]] | None = None,
        without: Collection[str] = (),
    ) -> Data:
        """All values of a table as TOML data; notes for each where it comes from.

        spec: what `name` means; it stands there by its qualified name.
        presets: values of a preset that the table has where it states none, each with its source.
        without: names that do not count.
        """
        data = {name: value for part in parts for name, value in plain(part).items() if name not in without}
        if key[0] in ("student", "teacher", "model"):
            data = {k: v for k, v in data.items() if v or k not in ("name", "weights", "overrides")}  # empty means not set
        for name in data:
            source = presets[name][1] if presets and name in presets else "default"
            self.origins[dotted((*key, name))] = self.document.origin((*key, name)) if name in stated else source
        return data if spec is None else {**data, "name": spec.qualified}


def option_names(spec: Spec) -> Collection[str] | None:
    """The names of a plugin's options; None where they cannot be loaded, which is noted when they are checked."""
    try:
        return load_options(spec).model_fields.keys()
    except PluginError:
        return None


def split(values: Mapping[str, Any], core: type[BaseModel]) -> tuple[Data, Data]:
    """The core's keys of a table, and the plugin's."""
    own = {k: v for k, v in values.items() if k not in core.model_fields}
    return {k: v for k, v in values.items() if k in core.model_fields}, own
