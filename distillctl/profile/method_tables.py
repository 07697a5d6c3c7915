"""`[method]` and `[[method]]`: presets, wrappers, and the one weight of the label loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillctl.api.specs import MethodSpec
from distillctl.profile.builder import Builder, split
from distillctl.profile.checking import check_table
from distillctl.profile.locate import Key
from distillctl.profile.presets import Pair, preset_values
from distillctl.profile.schema import MethodChoice, MethodTable
from distillctl.profile.source import dotted
from distillctl.profile.tables import Data

MAX_METHODS = 32
"""[[method]] tables of one profile."""

_CORE = frozenset(MethodTable.model_fields)
_OUTSIDE = ("weight", "task_weight", "warmup_epochs", "gather")
"""Keys that belong to the whole of a wrapper and what it wraps."""


class MethodTables:
    """All method tables of a profile.

    specs: those that were found, whatever else is wrong. choices: complete if no problem was noted.
    """

    def __init__(self, builder: Builder, pair: Pair) -> None:
        self.builder = builder
        self.pair = pair
        self.specs: list[tuple[MethodSpec, Key]] = []
        self.all_known = True
        self.task_weight = 1.0
        self.choices: list[MethodChoice] = []
        self.data: list[Data] = []
        self._task_weights: list[tuple[float, bool, str, Key]] = []
        epochs = builder.source.get(("train", "epochs"))
        self._epochs = epochs if type(epochs) is int and epochs > 0 else 0
        for key, values in self._tables():
            self._read(key, values)
        self._check_none()
        self._settle_task_weight()

    def _tables(self) -> list[tuple[Key, dict[str, Any]]]:
        source = self.builder.source
        value = source.data.get("method", [])
        if isinstance(value, dict):
            return [(("method",), value)]
        if not isinstance(value, list) or not all(isinstance(t, dict) for t in value):
            hint = f'write `[method]` and below it `name = "{value}"`' if isinstance(value, str) else ""
            source.complain("`method` must be a table, [method], or several, [[method]]", ("method",), hint)
            self.all_known = False
            return []
        if not value:
            return [(("method",), {"name": "none"})]
        if len(value) > MAX_METHODS:
            source.complain(f"there are {len(value)} [[method]] tables, more than {MAX_METHODS}", ("method", MAX_METHODS))
            self.all_known = False
            return []
        return [(("method", i), table) for i, table in enumerate(value)]

    def _read(self, key: Key, values: Mapping[str, Any]) -> None:
        builder = self.builder
        stated, own = split(values, MethodTable)
        spec = builder.find(builder.registry.methods, (*key, "name"), stated.get("name"))
        if spec is None:
            self.all_known = False
            check_table(builder.source, MethodTable, stated, key)
            return
        self.specs.append((spec, key))
        inner, inner_data = self._take_inner(spec, key, own)
        presets = preset_values(spec, self.pair, own, None if inner is None else inner.spec, self._epochs)
        defaults = {"weight": spec.weight, "task_weight": spec.task_weight, "warmup_epochs": spec.warmup_epochs}
        given = {k: v for k, (v, _) in presets.items()}
        core = {**defaults, **{k: v for k, v in given.items() if k in _CORE}, **stated}
        table = check_table(builder.source, MethodTable, core, key)
        self._idle_temperature(spec, inner, key, own, given)
        options = builder.options(spec, "method", {**{k: v for k, v in given.items() if k not in _CORE}, **own}, key, MethodTable)
        if table is None or options is None:
            return
        if table.gather and not _compares_images(spec, inner):
            builder.no_effect((*key, "gather"), f"on `{spec.name}`, which looks at each image alone")
        self._task_weights.append((table.task_weight, "task_weight" in stated, spec.name, key))
        self.choices.append(MethodChoice(spec, table, options, inner))
        data = builder.record(key, [table, options], values, presets)
        data["name"] = spec.qualified
        if inner_data is not None:
            data["inner"] = inner_data
        self.data.append(data)

    def _has_option(self, spec: MethodSpec, name: str) -> bool:
        from distillctl.plugin.registry import load

        return bool(spec.options) and name in load(spec.options, spec.name).model_fields

    def _take_inner(self, spec: MethodSpec, key: Key, own: dict[str, Any]) -> tuple[MethodChoice | None, Data | None]:
        """Takes the table of the wrapped method out of `own` and reads it; only wrappers may have one."""
        if spec.inner:
            return self._read_inner(spec, (*key, "inner"), own.pop("inner", {}))
        if "inner" in own and not self._has_option(spec, "inner"):
            self.builder.no_effect((*key, "inner"), f"on `{spec.name}`, which wraps no other method")
            del own["inner"]
        return None, None

    def _read_inner(self, wrapper: MethodSpec, key: Key, values: Any) -> tuple[MethodChoice | None, Data | None]:
        """`[method.inner]` has no weights of its own: those of the wrapper stand before the terms."""
        builder = self.builder
        if not isinstance(values, dict):
            builder.source.complain(f"`{dotted(key)}` must be a table, [method.inner]", key)
            return None, None
        stated, own = split({"name": wrapper.inner, **values}, MethodTable)
        for name in _OUTSIDE:
            if name in stated:
                builder.no_effect((*key, name), f"in [method.inner]: it belongs in the table of `{wrapper.name}`")
                del stated[name]
        spec = builder.find(builder.registry.methods, (*key, "name"), stated["name"])
        if spec is None:
            self.all_known = False
            check_table(builder.source, MethodTable, stated, key)
            return None, None
        if spec.name == wrapper.name or not _can_wrap(wrapper, spec):
            fitting = ", ".join(f"`{s.name}`" for s in builder.registry.methods if s.name != wrapper.name and _can_wrap(wrapper, s))
            why = "" if wrapper.inner_kinds or spec.name == wrapper.name else ", which has no temperature"
            builder.source.complain(f"`{wrapper.name}` cannot wrap `{spec.name}`{why}", (*key, "name"), f"it can wrap {fitting}")
            return None, None
        self.specs.append((spec, key))
        inner, inner_data = self._take_inner(spec, key, own)
        if inner is not None and not wrapper.inner_kinds and not _takes_temperature(inner):
            builder.source.complain(
                f"`{wrapper.name}` cannot wrap `{spec.name}` around `{inner.spec.name}`, which finds the temperature by itself",
                (*key, "inner"),
                "one method can steer the temperature",
            )
            return None, None
        steers = spec.takes_temperature and (wrapper.takes_temperature or not wrapper.inner_kinds)
        idle = {*_CORE, *(("temperature",) if steers else ())}
        presets = {k: v for k, v in preset_values(spec, self.pair, own, None if inner is None else inner.spec).items() if k not in idle}
        self._idle_temperature(spec, inner, key, own, {})
        table = check_table(builder.source, MethodTable, stated, key)
        options = builder.options(spec, "method", {**{k: v for k, (v, _) in presets.items()}, **own}, key, MethodTable)
        if table is None or options is None:
            return None, None
        if (
            steers
            and "temperature" in own
            and getattr(options, "temperature", None) != type(options).model_fields["temperature"].get_default()
        ):
            builder.no_effect((*key, "temperature"), f"under `{wrapper.name}`, which steers the temperature")
        data = builder.record(key, [table, options], values, presets)
        for name in (*_OUTSIDE, *(("temperature",) if steers else ())):
            data.pop(name, None)
            builder.origins.pop(dotted((*key, name)), None)
        data["name"] = spec.qualified
        if inner_data is not None:
            data["inner"] = inner_data
        return MethodChoice(spec, table, options, inner), data

    def _idle_temperature(self, spec: MethodSpec, inner: MethodChoice | None, key: Key, own: dict[str, Any], given: dict[str, Any]) -> None:
        """A wrapper that would pass its temperature on to a method that takes none (another wrapper, which learns it)."""
        if inner is not None and spec.takes_temperature and not inner.spec.takes_temperature:
            given.pop("temperature", None)
            if own.pop("temperature", None) is not None:
                self.builder.no_effect((*key, "temperature"), f"around `{inner.spec.name}`, which finds the temperature by itself")

    def _check_none(self) -> None:
        """Weights of the control, which has no terms, and the control beside other methods."""
        none = [(spec, key) for spec, key in self.specs if spec.name == "none" and "inner" not in key]
        for _, key in none:
            values = self.builder.source.get(key) or {}
            for name, default in (("weight", 1.0), ("warmup_epochs", 0.0)):
                if name in values and values[name] != default:
                    self.builder.no_effect((*key, name), "with the method `none`, which has no terms", (*key, "name"))
            if len(self.specs) > 1:
                self.builder.source.complain("the method `none` has no effect beside other methods", (*key, "name"))

    def _settle_task_weight(self) -> None:
        source = self.builder.source
        stated = [entry for entry in self._task_weights if entry[1]]
        values = {entry[0] for entry in stated or self._task_weights}
        if len(values) > 1:
            listed = " and ".join(
                f"`{name}` {'has' if stated else 'wants'} {value:g}" for value, _, name, _ in stated or self._task_weights
            )
            key = (*(stated or self._task_weights)[-1][3], *(("task_weight",) if stated else ("name",)))
            if stated:
                source.complain(
                    f"`task_weight` is stated twice with different values: {listed}", key, "there is one label loss: state it once"
                )
            else:
                source.complain(
                    f"the methods disagree on the weight of the label loss: {listed}", key, "state `task_weight` in one of the tables"
                )
            return
        if not values:
            return
        self.task_weight = values.pop()
        if self.task_weight == 0 and self.all_known and all(c.table.weight == 0 or c.spec.name == "none" for c in self.choices):
            source.complain("all weights are 0, so that nothing is trained", (*self._task_weights[0][3], "task_weight"))
        for i, choice in enumerate(self.choices):
            self.data[i]["task_weight"] = self.task_weight
            table = choice.table.model_copy(update={"task_weight": self.task_weight})
            self.choices[i] = MethodChoice(choice.spec, table, choice.options, choice.inner)
        if stated:
            origin = self.builder.origins[dotted((*stated[0][3], "task_weight"))]
            for _, _, _, key in self._task_weights:
                self.builder.origins[dotted((*key, "task_weight"))] = origin


def _can_wrap(wrapper: MethodSpec, spec: MethodSpec) -> bool:
    return spec.kind in wrapper.inner_kinds if wrapper.inner_kinds else spec.takes_temperature


def _compares_images(spec: MethodSpec, inner: MethodChoice | None) -> bool:
    return spec.compares_images or (inner is not None and _compares_images(inner.spec, inner.inner))


def _takes_temperature(choice: MethodChoice) -> bool:
    """Whether a temperature that is given from outside arrives: wrappers pass it on to what they wrap."""
    return choice.spec.takes_temperature and (choice.inner is None or _takes_temperature(choice.inner))
