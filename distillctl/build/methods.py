"""The methods of a profile: what they want, and the objects themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch

from distillctl.api.method import OUTPUT, Method, Setup, Side, Wants, Wrapper
from distillctl.build.checks import check_returned, check_wants
from distillctl.data.hashing import METHODS, mix
from distillctl.engine.objective import Weighted
from distillctl.errors import PluginError, ProfileError
from distillctl.models.ensemble import normalised
from distillctl.plugin.registry import load_class
from distillctl.profile.schema import MethodChoice, Profile

_RELABELS = "the spec says `relabels=True` if the class overrides `relabel`, and only then"
_NO_SIDES: Mapping[str, Side] = MappingProxyType({})
_GIVES_HEAD = "the spec says `gives_head=True` if the class overrides `head`, and only then"


def wants_of(choice: MethodChoice) -> Wants:
    """What a method and the methods that it wraps want."""
    wants = _method_class(choice).wants(choice.options)
    check_wants(wants, choice.spec.name)
    if choice.inner is None:
        return wants
    inner = wants_of(choice.inner)
    return Wants(
        (*wants.student, *inner.student),
        (*wants.teacher, *inner.teacher),
        max(wants.passes, inner.passes),
        "batch" if "batch" in (wants.teacher_norm, inner.teacher_norm) else "running",
    )


def numbered(names: Iterable[str]) -> list[str]:
    """Names of their own: a second `kd` becomes `kd-2`."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


class Asks(NamedTuple):
    """Whom one object of a method asks.

    teachers: their numbers. factor: what its terms count beside those for other teachers.
    mean: what each counts in the mean of their probabilities, or `confidence`; None for the one teacher as it is.
    """

    teachers: tuple[int, ...]
    factor: float = 1.0
    mean: tuple[float, ...] | Literal["confidence"] | None = None


def asks_of(choice: MethodChoice, count: int) -> list[Asks]:
    """Of so many teachers: one for the mean of them, or one for each. Who has the weight 0 is not asked.

    Raises:
        ProfileError: features, which have no mean, are wanted of a mean; or each is asked, and shares depend on the image.
    """
    if count < 2 or not _needs_teacher(choice):
        return [Asks((0,))]
    name, stated = choice.spec.name, choice.table.teacher_weights
    features = [feature for feature in wants_of(choice).teacher if feature != OUTPUT]
    each = choice.table.teachers == "each" or (choice.table.teachers is None and bool(features))
    if not each and features:
        raise ProfileError(
            f"`{name}` reads the feature `{features[0]}` of its teacher, and features of several networks have no mean",
            where="method",
            hint='`teachers = "each"` learns from each of them',
        )
    if each and isinstance(stated, str):
        raise ProfileError(
            f'`{name}` reads features and learns from each teacher by itself, where `teacher_weights = "{stated}"` has no meaning',
            where="method",
            hint="state a number for each teacher, or leave it out",
        )
    weights = normalised([1.0] * count if stated is None or isinstance(stated, str) else stated)
    counting = [number for number, weight in enumerate(weights) if weight > 0]
    if each:
        return [Asks((number,), weights[number]) for number in counting]
    return [Asks(tuple(counting), mean=stated if isinstance(stated, str) else tuple(weights[number] for number in counting))]


def build_methods(
    profile: Profile,
    setup: Setup,
    wanted: Callable[[MethodChoice], bool] = lambda _: True,
    built: Weighted | None = None,
    teachers: Mapping[str, Side] = _NO_SIDES,
) -> list[Weighted]:
    """The wanted methods, each under a name of its own; `built` is one that is there already.

    teachers: of several, each by its name; `setup.teacher` is then the mean of all.
    """
    result: list[Weighted] = []
    sides = list(teachers.items())
    weighted = [(number, choice) for number, choice in enumerate(profile.methods) if choice.table.weight]
    for (number, choice), name in zip(weighted, numbered(choice.spec.name for _, choice in weighted), strict=True):
        for position, asks in enumerate(asks_of(choice, len(sides))):
            own, to = name, setup
            if sides and asks.mean is None and _needs_teacher(choice):
                teacher, side = sides[asks.teachers[0]]
                own, to = f"{name}[{teacher}]", replace(setup, teacher=side)
            # Their own draws, so that a method does not change the student's initial weights.
            torch.manual_seed(mix(profile.seed, METHODS, number, *((position,) if position else ())))
            if built is not None and own == built.name:
                result.append(built)
            elif wanted(choice):
                result.append(_weighted(own, choice, to, asks))
    return result


def _weighted(name: str, choice: MethodChoice, setup: Setup, asks: Asks) -> Weighted:
    wants = wants_of(choice)
    return Weighted(
        name,
        _build_method(choice, setup),
        choice.table.weight * asks.factor,
        choice.table.warmup_epochs,
        needs_teacher=_needs_teacher(choice),
        passes=wants.passes,
        teacher_norm=wants.teacher_norm,
        gather=choice.table.gather,
        unit=choice.unit,
        relabels=choice.spec.relabels,
        teachers=asks.teachers,
        mean=asks.mean,
    )


def _needs_teacher(choice: MethodChoice) -> bool:
    return choice.spec.needs_teacher or (choice.inner is not None and _needs_teacher(choice.inner))


def _build_method(choice: MethodChoice, setup: Setup) -> Method:
    cls = _method_class(choice)
    inner = () if choice.inner is None else (_build_method(choice.inner, setup),)
    method = cls(choice.options, setup, *inner)
    method.called = choice.spec.name
    check_returned(method, choice.spec.name)
    return method


def gives_head(choice: MethodChoice) -> bool:
    """Whether a method, or one that it wraps, may replace the classifier."""
    return choice.spec.gives_head or (choice.inner is not None and gives_head(choice.inner))


def _method_class(choice: MethodChoice) -> type[Method]:
    cls = load_class(choice.spec, Method, "method")
    if (cls.head not in (Method.head, Wrapper.head)) != choice.spec.gives_head:
        raise PluginError(f"the method `{choice.spec.name}` and its declaration disagree on `gives_head`", hint=_GIVES_HEAD)
    if (cls.relabel is not Method.relabel) != choice.spec.relabels:
        raise PluginError(f"the method `{choice.spec.name}` and its declaration disagree on `relabels`", hint=_RELABELS)
    return cls
