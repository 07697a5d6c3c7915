"""The methods of a profile: what they want, and the objects themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch

from distillctl.api.method import Method, Setup, Wants, Wrapper
from distillctl.build.checks import check_returned, check_wants
from distillctl.data.hashing import METHODS, mix
from distillctl.engine.objective import Weighted
from distillctl.errors import PluginError
from distillctl.plugin.registry import load_class
from distillctl.profile.schema import MethodChoice, Profile

_RELABELS = "the spec says `relabels=True` if the class overrides `relabel`, and only then"
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


def build_methods(
    profile: Profile, setup: Setup, wanted: Callable[[MethodChoice], bool] = lambda _: True, built: Weighted | None = None
) -> list[Weighted]:
    """The wanted methods, each under a name of its own; `built` is one that is there already."""
    result: list[Weighted] = []
    weighted = [(number, choice) for number, choice in enumerate(profile.methods) if choice.table.weight]
    for (number, choice), name in zip(weighted, numbered(choice.spec.name for _, choice in weighted), strict=True):
        # Their own draws, so that a method does not change the student's initial weights.
        torch.manual_seed(mix(profile.seed, METHODS, number))
        if built is not None and name == built.name:
            result.append(built)
            continue
        if not wanted(choice):
            continue
        wants = wants_of(choice)
        result.append(
            Weighted(
                name,
                _build_method(choice, setup),
                choice.table.weight,
                choice.table.warmup_epochs,
                needs_teacher=_needs_teacher(choice),
                passes=wants.passes,
                teacher_norm=wants.teacher_norm,
                gather=choice.table.gather,
                unit=choice.unit,
                relabels=choice.spec.relabels,
            )
        )
    return result


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
