"""How deep each layer of a network lies: how many of its stages have ended when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any

import torch
from torch import nn

from distillctl.api.specs import ModelSpec
from distillctl.errors import RunError
from distillctl.models.features import Tap, evaluating, noise, stage_names


def levels(spec: ModelSpec) -> tuple[str, ...]:
    """The stages from the lowest on, the stem among them."""
    return tuple(name for name in ("stem",) if name in spec.stages) + stage_names(spec)


class Depths:
    """Of all modules and parameters, found by one forward.

    The depth of a module is the number of stages that have ended when it begins: 0 in the stem (or the first stage, where the model
    declares no stem), and `len(levels(spec))` behind the last stage. A module that no forward calls lies where the one that holds it ends.

    model: is run in evaluation mode, so that nothing of it changes.
    shape: (C, H, W) of the images.

    Raises:
        RunError: a stage is not reached.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, shape: tuple[int, int, int]) -> None:
        ended: dict[str, int] = {}
        begins: dict[str, int] = {}
        ends: dict[str, int] = {}
        clock = count()

        def note(times: dict[str, int], name: str, *, first: bool = False) -> Any:
            def hook(*_: object) -> None:
                now = next(clock)
                times[name] = times.get(name, now) if first else now

            return hook

        taps = {name: Tap.parse(spec.stages[name]) for name in levels(spec)}
        with ExitStack() as hooks:
            # Hooks run in this order: a stage that is what a module receives ends before the module, any other behind it.
            for name, tap in taps.items():
                if "input" in tap.suffixes:
                    hooks.callback(model.get_submodule(tap.path).register_forward_pre_hook(note(ended, name)).remove)
            for name, module in model.named_modules():
                hooks.callback(module.register_forward_pre_hook(note(begins, name, first=True)).remove)
                hooks.callback(module.register_forward_hook(note(ends, name)).remove)
            for name, tap in taps.items():
                if "input" not in tap.suffixes:
                    hooks.callback(model.get_submodule(tap.path).register_forward_hook(note(ended, name)).remove)
            with evaluating(model), torch.no_grad():
                model(noise(shape).to(next(model.parameters()).device))
        if missing := [name for name in taps if name not in ended]:
            raise RunError(f"`{taps[missing[0]].path}` of `{spec.name}` is not reached in a forward")

        def depth(time: int) -> int:
            return sum(end < time for end in ended.values())

        self._model = model
        self._spans: dict[str, tuple[int, int]] = {}
        for name, _ in model.named_modules():  # what holds others comes before them
            if name in begins:
                self._spans[name] = depth(begins[name]), depth(ends[name])
            else:
                _, end = self._spans[name.rpartition(".")[0]]
                self._spans[name] = end, end

    @property
    def of_parameters(self) -> Mapping[str, int]:
        """Depth of each parameter by its name; of one that several modules share, that of the lowest."""
        found: dict[int, int] = {}
        for name, module in self._model.named_modules():
            begin, _ = self._spans[name]
            for parameter in module.parameters(recurse=False):
                found[id(parameter)] = min(found.get(id(parameter), begin), begin)
        return {name: found[id(parameter)] for name, parameter in self._model.named_parameters()}

    def modules_up_to(self, depth: int) -> tuple[str, ...]:
        """Names of the modules that have ended at this depth, from the outside inwards."""
        return tuple(name for name, (_, end) in self._spans.items() if end <= depth)
