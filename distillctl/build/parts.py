"""The parts of a run, and the optimizer that each of them gets."""

from __future__ import annotations

from typing import Any

import torch

from distillctl.api.optimizer import SeparateGradients
from distillctl.api.options import Options
from distillctl.build.checks import check_phase
from distillctl.engine.experiment import MAIN, Part
from distillctl.engine.objective import Weighted
from distillctl.engine.schedule import schedule
from distillctl.errors import PluginError
from distillctl.plugin.registry import load
from distillctl.profile.schema import OptimizerChoice, Profile


def build_parts(profile: Profile, methods: list[Weighted]) -> tuple[Part, ...]:
    """The phases of the methods, in the order of the profile, and the main part."""
    rate, table = _base_rate(profile.optimizer.options), profile.schedule
    parts: list[Part] = []
    begin = 0
    for entry in methods:
        for phase in entry.method.phases():
            check_phase(entry, phase)
            if any(part.name == f"{entry.name}.{phase.name}" for part in parts):
                raise PluginError(f"`{entry.name}` has two phases called `{phase.name}`")
            constant = schedule("constant", rate if phase.lr is None else phase.lr)
            parts.append(Part(f"{entry.name}.{phase.name}", begin, phase.epochs, constant, entry.name, phase))
            begin += phase.epochs
    whole = schedule(
        table.name,
        rate,
        milestones=table.milestones,
        gamma=table.gamma,
        min_lr=table.min_lr,
        cycles=table.cycles or 1.0,
        wave=table.cycle == "wave",
        warmup=table.warmup,
        warmup_lr=table.warmup_lr,
    )
    return (*parts, Part(MAIN, begin, profile.train.epochs, whole))


def build_optimizer(choice: OptimizerChoice, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of a part.

    Raises:
        PluginError: its builder returns something else than it declares.
    """
    optimizer = load(choice.spec.implementation, choice.spec.name)(groups, choice.options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PluginError(f"the builder of the optimizer `{choice.spec.name}` returned {type(optimizer).__name__}, not an optimizer")
    if isinstance(optimizer, SeparateGradients) != choice.spec.separate_gradients:
        raise PluginError(f"the optimizer `{choice.spec.name}` and its declaration disagree on `separate_gradients`")
    return optimizer


def _base_rate(options: Options) -> float:
    rate = getattr(options, "lr", None)
    if not isinstance(rate, float):
        raise PluginError(f"the optimizer's options {type(options).__name__} have no field `lr`")
    return rate
