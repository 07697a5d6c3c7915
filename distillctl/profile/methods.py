"""`[method]` and `[[method]]`: presets, wrappers, and the one weight of the label loss."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from distillctl.api.options import Options
from distillctl.api.specs import MethodSpec
from distillctl.profile.checking import Check, Data, option_names, split
from distillctl.profile.document import dotted
from distillctl.profile.presets import Pair, preset_values
from distillctl.profile.schema import MethodChoice, MethodTable, TrainTable
from distillctl.profile.toml_file import Key

MAX_METHODS = 32
"""[[method]] tables of one profile."""

_CORE = frozenset(MethodTable.model_fields)
_OUTSIDE = ("weight", "task_weight", "warmup_epochs", "gather", "teachers", "teacher_weights")
"""Keys that belong to the whole of a wrapper and what it wraps."""

_INNER = "inner."
"""Before a preset's key that is one of the wrapped method."""


@dataclass(frozen=True)
class _Method:
    """One table in which everything is right."""

    key: Key
    stated: Mapping[str, Any]
    choice: MethodChoice
    data: Data


class Methods:
    """All method tables of a profile.

    specs: those that were found, whatever else is wrong, with the places of their tables.
    all_known: whether these are all.
    task_weight, choices: complete if no problem was noted.
    labelled: whether there is a label loss.
    teachers: how many there are.
    """

    def __init__(self, check: Check, pair: Pair, *, labelled: bool = True, teachers: int = 1) -> None:
        self.check = check
        self.labelled = labelled
        self._teachers = teachers
        self.pair = pair
        self.specs: list[tuple[MethodSpec, Key]] = []
        self.all_known = True
        epochs = check.document.get(("train", "epochs"))
        self._epochs = epochs if type(epochs) is int and epochs > 0 else 0
        tables = check.several("method", "[method]", MAX_METHODS)
        if tables is None:
            self.all_known = False
        elif not tables:
            tables = [(("method",), {"name": "none"})]
        methods = [method for key, values in tables or () if (method := self._read(key, values))]
        self._check_none()
        self.task_weight = self._common_task_weight(methods)
        weight = {"task_weight": self.task_weight}
        self.choices = tuple(replace(m.choice, table=m.choice.table.model_copy(update=weight)) for m in methods)
        data = [m.data | weight for m in methods]
        check.resolved["method"] = data[0] if data and methods[0].key == ("method",) else data

    @property
    def teach(self) -> bool:
        """Whether a method learns from a teacher."""
        return any(spec.needs_teacher for spec, _ in self.specs)

    def _read(
        self,
        key: Key,
        values: Mapping[str, Any],
        wrapper: MethodSpec | None = None,
        from_wrapper: Mapping[str, tuple[Any, str]] | None = None,
    ) -> _Method | None:
        """One table, with that of the method that it wraps; None, with problems noted, if something is wrong.

        wrapper: the method that wraps this one. Its weights stand before the terms, so that this table has none of its own.
        from_wrapper: options that the wrapper's presets give to this one, each with its source.
        """
        check = self.check
        stated, own = split(values if wrapper is None else {"name": wrapper.inner, **values}, MethodTable)
        if wrapper:
            for name in [name for name in _OUTSIDE if name in stated]:
                check.no_effect((*key, name), f"in [method.inner]: it belongs in the table of `{wrapper.name}`")
                del stated[name]
        spec = check.find(check.registry.methods, (*key, "name"), stated.get("name"))
        if spec is None:
            self.all_known = False
            check.table(MethodTable, stated, key)
            return None
        if wrapper and not self._may_wrap(wrapper, spec, key):
            return None
        self.specs.append((spec, key))
        names = option_names(spec)
        inner = self._take_inner(spec, key, own, names)
        wrapped = inner.choice if inner else None
        if wrapper and wrapped and not wrapper.inner_kinds and not _takes_temperature(wrapped):
            message = f"`{wrapper.name}` cannot wrap `{spec.name}` around `{wrapped.spec.name}`, which finds the temperature by itself"
            check.complain(message, (*key, "inner"), "one method can steer the temperature")
            return None

        steered = wrapper is not None and spec.takes_temperature and (wrapper.takes_temperature or not wrapper.inner_kinds)
        idle = () if wrapper is None else (*_OUTSIDE, "temperature") if steered else _OUTSIDE
        presets = {} if names is None else preset_values(spec, self.pair, own, wrapped.spec if wrapped else None, self._epochs)
        presets = {name: value for name, value in presets.items() if not name.startswith(_INNER)} | {**(from_wrapper or {})}
        given = {name: value for name, (value, _) in presets.items() if name not in idle}
        defaults = {} if wrapper else {"weight": spec.weight, "task_weight": spec.task_weight, "warmup_epochs": spec.warmup_epochs}
        core = {**defaults, **{k: v for k, v in given.items() if k in _CORE}, **stated}
        table = check.table(MethodTable, core, key)
        if wrapped and spec.takes_temperature and not wrapped.spec.takes_temperature:  # it would be passed on, and is not taken
            given.pop("temperature", None)
            if own.pop("temperature", None) is not None:
                check.no_effect((*key, "temperature"), f"around `{wrapped.spec.name}`, which finds the temperature by itself")
        options = check.options(spec, "method", {**{k: v for k, v in given.items() if k not in _CORE}, **own}, key, MethodTable)
        if table is None or options is None:
            return None
        if wrapper and steered and "temperature" in own and not _is_default(options, "temperature"):
            check.no_effect((*key, "temperature"), f"under `{wrapper.name}`, which steers the temperature")
        if not wrapper:
            table = self._check_teachers(table, spec, wrapped, key)
        if table.gather and not _compares_images(spec, wrapped):
            check.no_effect((*key, "gather"), f"on `{spec.name}`, which looks at each image alone")
        data = check.record(key, [table, options], values, spec, presets=presets, without=idle)
        if inner:
            data["inner"] = inner.data
        return _Method(key, values, MethodChoice(spec, table, options, wrapped), data)

    def _check_teachers(self, table: MethodTable, spec: MethodSpec, inner: MethodChoice | None, key: Key) -> MethodTable:
        """What the table says of several teachers; without it where the command line left one."""
        stated = [name for name in ("teachers", "teacher_weights") if getattr(table, name) is not None]
        for name in stated:
            if self._teachers < 2:
                self.check.no_effect((*key, name), "without several [[teacher]] tables", ("teacher",))
            elif not spec.needs_teacher and (inner is None or not inner.spec.needs_teacher):
                self.check.no_effect((*key, name), f"on `{spec.name}`, which has no teacher")
        if self._teachers < 2:
            return table.model_copy(update=dict.fromkeys(stated))
        weights, name = table.teacher_weights, dotted((*key, "teacher_weights"))
        if isinstance(weights, list) and len(weights) != self._teachers:
            message = f"`{name}` has {len(weights)} numbers for {self._teachers} teachers"
            self.check.complain(message, (*key, "teacher_weights"), "one for each, in the order of the [[teacher]] tables")
        elif isinstance(weights, list) and not (min(weights) >= 0 and math.isclose(sum(weights), 1, abs_tol=1e-3)):
            message = f"`{name}` must have numbers from 0 to 1 that sum to 1, and these sum to {sum(weights):g}"
            self.check.complain(message, (*key, "teacher_weights"), "for thirds, [0.333, 0.333, 0.334]")
        if weights == "confidence" and table.teachers == "each":
            message = "`confidence` weighs each image's answers, and with `each` every teacher has terms of its own"
            self.check.complain(message, (*key, "teacher_weights"), 'use `teachers = "mean"`, or state a number for each teacher')
        if weights == "confidence" and not self.labelled:
            self.check.no_effect((*key, "teacher_weights"), "on images without labels: it asks who is nearer to the label")
        return table

    def _take_inner(self, spec: MethodSpec, key: Key, own: Data, names: Collection[str] | None) -> _Method | None:
        """Takes the table of the wrapped method out of `own` and reads it; only wrappers may have one."""
        key = (*key, "inner")
        if spec.inner:
            values = own.pop("inner", {})
            if isinstance(values, dict):
                given = {} if names is None else self._for_inner(spec, own, values.get("name", spec.inner))
                return self._read(key, values, spec, given)
            self.check.complain(f"`{dotted(key)}` must be a table, [method.inner]", key)
        elif "inner" in own and names is not None and "inner" not in names:
            self.check.no_effect(key, f"on `{spec.name}`, which wraps no other method")
            del own["inner"]
        return None

    def _for_inner(self, spec: MethodSpec, own: Data, name: Any) -> dict[str, tuple[Any, str]]:
        """Options that the presets of a wrapper give to the method of this name within it."""
        methods = self.check.registry.methods
        if not isinstance(name, str) or name not in methods:
            return {}
        found = preset_values(spec, self.pair, own, methods.get(name), self._epochs)
        return {key.removeprefix(_INNER): value for key, value in found.items() if key.startswith(_INNER)}

    def _may_wrap(self, wrapper: MethodSpec, spec: MethodSpec, key: Key) -> bool:
        if spec.name != wrapper.name and _can_wrap(wrapper, spec):
            return True
        fitting = ", ".join(f"`{s.name}`" for s in self.check.registry.methods if s.name != wrapper.name and _can_wrap(wrapper, s))
        why = "" if wrapper.inner_kinds or spec.name == wrapper.name else ", which has no temperature"
        self.check.complain(f"`{wrapper.name}` cannot wrap `{spec.name}`{why}", (*key, "name"), f"it can wrap {fitting}")
        return False

    def _check_none(self) -> None:
        """Weights of the control, which has no terms, and the control beside other methods."""
        for _, key in [(spec, key) for spec, key in self.specs if spec.name == "none" and "inner" not in key]:
            values = self.check.document.get(key) or {}
            for name, default in (("weight", 1.0), ("warmup_epochs", 0.0)):
                if name in values and values[name] != default:
                    self.check.no_effect((*key, name), "with the method `none`, which has no terms", (*key, "name"))
            if len(self.specs) > 1:
                self.check.complain("the method `none` has no effect beside other methods", (*key, "name"))

    def _common_task_weight(self, methods: list[_Method]) -> float:
        """The one weight of the label loss: as the tables state it, or else as the methods want it; 0 where there are no labels."""
        if not self.labelled:
            return self._no_task_weight(methods)
        stated = [m for m in methods if "task_weight" in m.stated]
        deciding = stated or methods
        weights = {m.choice.table.task_weight for m in deciding}
        if len(weights) > 1:
            verb = "has" if stated else "wants"
            listed = " and ".join(f"`{m.choice.spec.name}` {verb} {m.choice.table.task_weight:g}" for m in deciding)
            key = deciding[-1].key
            if stated:
                message, hint = "`task_weight` is stated twice with different values", "there is one label loss: state it once"
                self.check.complain(f"{message}: {listed}", (*key, "task_weight"), hint)
            else:
                message, hint = "the methods disagree on the weight of the label loss", "state `task_weight` in one of the tables"
                self.check.complain(f"{message}: {listed}", (*key, "name"), hint)
        weight = weights.pop() if len(weights) == 1 else 1.0
        if weight == 0 and _idle(methods) and self.all_known:
            self.check.complain("all weights are 0, so that nothing is trained", (*methods[0].key, "task_weight"))
        for method in methods if stated else ():
            origins = self.check.origins
            origins[dotted((*method.key, "task_weight"))] = origins[dotted((*stated[0].key, "task_weight"))]
        return weight

    def _no_task_weight(self, methods: list[_Method]) -> float:
        """0; any other is refused."""
        for method in methods:
            key = (*method.key, "task_weight")
            if method.stated.get("task_weight"):
                self.check.no_effect(key, "on images without labels: there is no label loss", ("dataset", "labels"), "leave it out")
            self.check.origins[dotted(key)] = "images without labels"
        if self.teach and methods and _idle(methods) and self.all_known:
            self.check.complain("all weights are 0, so that nothing is trained", (*methods[0].key, "weight"))
        return 0.0


def check_unlabelled(check: Check, methods: Methods, train: TrainTable | None) -> None:
    """Refuses, for images without labels, methods from which nothing is learnt, and options of the label loss."""
    if check.trusted:
        return
    if methods.all_known and not methods.teach:
        names = " and ".join(f"`{spec.name}`" for spec, _ in methods.specs)
        learn = "learns" if len(methods.specs) == 1 else "learn"
        key = methods.specs[0][1] if methods.specs else ("method",)
        hint = 'choose a method with a teacher, for example `[method]` with `name = "kd"`'
        check.complain(
            f"{names} {learn} nothing from a teacher, and without labels there is nothing else to learn from", (*key, "name"), hint
        )
    for name in ("label_smoothing", "focal", "poly", "class_weights"):
        if train is not None and getattr(train, name):
            check.no_effect(("train", name), "on images without labels: there is no label loss")


def check_mixed(check: Check, methods: Methods, train: TrainTable | None) -> None:
    """Refuses to mix images for a method that takes each of them for one of the data set's."""
    options = [name for name in ("mixup", "cutmix") if train is not None and getattr(train, name)]
    for spec, key in methods.specs if options else ():
        if spec.mixed == "refused":
            message = f"`{spec.name}` does not work with `train.{options[0]}`: it takes every image for one of the data set's"
            check.complain(message, (*key, "name"), "leave one of the two out")


def _idle(methods: list[_Method]) -> bool:
    """Whether no method has a term."""
    return all(m.choice.table.weight == 0 or m.choice.spec.name == "none" for m in methods)


def _is_default(options: Options, name: str) -> bool:
    return bool(getattr(options, name) == type(options).model_fields[name].get_default())


def _can_wrap(wrapper: MethodSpec, spec: MethodSpec) -> bool:
    return spec.kind in wrapper.inner_kinds if wrapper.inner_kinds else spec.takes_temperature


def _compares_images(spec: MethodSpec, inner: MethodChoice | None) -> bool:
    return spec.compares_images or (inner is not None and _compares_images(inner.spec, inner.inner))


def _takes_temperature(choice: MethodChoice) -> bool:
    """Whether a temperature that is given from outside arrives: wrappers pass it on to what they wrap."""
    return choice.spec.takes_temperature and (choice.inner is None or _takes_temperature(choice.inner))
