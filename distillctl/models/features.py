"""Takes features out of any model: resolves names, installs hooks, finds in-place writes, measures shapes.

A name is a stage that the model declares, `last`, `pooled`, `stages`, or a module path; suffixes change what is taken
(see `distillctl.ModelSpec.stages`). Hooks survive `torch.compile(fullgraph=True)`; rewriting the forward does not.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Side, expand_groups
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.errors import DistillError, ProfileError, RunError
from distillctl.models.forward_errors import advice, out_of_memory, refusal

_SUFFIXES = ("input", "nhwc", "tokens", "final")
_TOKENS = re.compile(r"tokens(\d*)")

HEAD = "head."
"""Begins the names of features that a method's own head gives: `head.NAME`."""


@dataclass(frozen=True)
class Tap:
    """Where one feature is taken: a module path and suffixes."""

    path: str
    suffixes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Tap:
        """`layer4.1.conv2:input` → path and suffixes."""
        path, *suffixes = text.split(":")
        unknown = [s for s in suffixes if s not in _SUFFIXES and not _TOKENS.fullmatch(s)]
        if unknown:
            raise ProfileError(
                f"unknown suffix `:{unknown[0]}` in the feature `{text}`", hint="allowed: " + ", ".join(f":{s}" for s in _SUFFIXES)
            )
        return cls(path, tuple(suffixes))

    def arrange(self, value: Tensor) -> Tensor:
        """Brings what the module gave into the order (B, C, H, W)."""
        if "nhwc" in self.suffixes:
            value = value.permute(0, 3, 1, 2)
        for found in filter(None, map(_TOKENS.fullmatch, self.suffixes)):
            count = value.shape[1] - int(found[1] or 0)
            side = math.isqrt(max(count, 0))
            extra = value.shape[1] - side * side
            if count - side * side not in ((0,) if found[1] else (0, 1)):
                what = f"{found[1]} others" if found[1] else "at most one class token"
                raise RunError(f"`{self.path}` gives {value.shape[1]} tokens, which are no square with {what}")
            value = value[:, extra:].transpose(1, 2).reshape(len(value), -1, side, side)
        return value


def stage_names(spec: ModelSpec) -> tuple[str, ...]:
    """What `stages` stands for: declared stages, shallow to deep, without stem, final map and pre-activations."""
    return tuple(name for name in spec.stages if name not in ("stem", "final", *spec.aside) and ":" not in name)


def expand(names: Iterable[str], spec: ModelSpec) -> tuple[str, ...]:
    """Replaces the names `stages` and `stages:pre` by the stages themselves; every name once."""
    return tuple(dict.fromkeys(expand_groups(names, stage_names(spec))))


def resolve(name: str, spec: ModelSpec, model: nn.Module) -> Tap:
    """Where a name is taken in this model.

    Raises:
        ProfileError: the model has no such stage or module; the message lists its stages and the nearest spelling.
    """
    if name == "last" or (name == "final" and name not in spec.stages):
        stages = stage_names(spec)
        if not stages:
            raise ProfileError(f"`{spec.name}` declares no stages, so `{name}` means nothing", hint="name a module path instead")
        return Tap.parse(spec.stages[stages[-1]])
    if name == "pooled":
        if not spec.classifier:
            raise ProfileError(
                f"`{spec.name}` declares no classifier, so `pooled` means nothing", hint="name a module path with `:input` instead"
            )
        return Tap(spec.classifier, ("input",))
    if name in spec.stages:
        return Tap.parse(spec.stages[name])
    if name.startswith(HEAD):
        path = f"{spec.classifier}.layers.{name.removeprefix(HEAD)}"
        if path not in dict(model.named_modules()):
            raise ProfileError(
                f"`{name}` is a feature of a head that takes the place of the classifier, and that of `{spec.name}` is its own",
                hint="only the method that gives the head can read it, or others beside it",
            )
        return Tap(path)
    if name.endswith(":pre") and name.removesuffix(":pre") in spec.stages:
        raise ProfileError(
            f"`{spec.name}` declares no pre-activation `{name}`",
            hint=f"use `{name.removesuffix(':pre')}`, or name a module path with `:input` for what an activation receives",
        )
    tap = Tap.parse(name)
    modules = dict(model.named_modules())
    if tap.path and tap.path in modules:
        return tap
    near = difflib.get_close_matches(tap.path, [*spec.stages, *modules], 3, 0.6)
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""
    raise ProfileError(
        f"`{spec.name}` has no stage or module `{name}`", hint=f"{hint}its stages: {', '.join(spec.stages) or 'none declared'}"
    )


class Tapped(nn.Module):
    """A model whose forward returns the wanted features, and what the model itself returned as `logits`.

    The model itself stays usable and keeps its state dict; `close` takes the hooks off.

    model: its in-place activations are switched off, since they overwrite what was captured.
    spec: its declaration.
    names: what to capture; expanded and resolved here.
    """

    def __init__(self, model: nn.Module, spec: ModelSpec, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.names = expand(names, spec)
        self._taps = {name: resolve(name, spec, model) for name in self.names if name != "logits"}
        self._cloned: set[str] = set()
        self._captured: dict[str, Tensor] = {}
        self._recording = False
        self._sample: dict[str, Tensor] = {}
        if self._taps:
            for module in model.modules():
                if getattr(module, "inplace", False) is True:
                    module.inplace = False  # type: ignore[assignment]
        self._handles = [self._install(name, tap) for name, tap in self._taps.items()]

    def _install(self, name: str, tap: Tap) -> torch.utils.hooks.RemovableHandle:
        module = self.model.get_submodule(tap.path)

        def keep(value: object) -> None:
            if not self._recording:  # somebody uses the bare model
                return
            if isinstance(value, tuple) and len(value) == 1:
                value = value[0]
            if not isinstance(value, Tensor):
                raise RunError(f"`{tap.path}` of `{self.spec.name}` gives {type(value).__name__}, not a tensor, so it cannot be a feature")
            if name in self._captured and "final" not in tap.suffixes:
                raise RunError(f"`{tap.path}` of `{self.spec.name}` runs more than once in a forward, so `{name}` is not one feature")
            self._captured[name] = value.clone() if name in self._cloned else value

        if "input" in tap.suffixes:

            def before(_module: nn.Module, args: tuple[object, ...]) -> None:
                keep(args[0])

            return module.register_forward_pre_hook(before)

        def after(_module: nn.Module, _args: tuple[object, ...], output: object) -> None:
            keep(output)

        return module.register_forward_hook(after)

    def forward(self, *args: Any, **keywords: Any) -> dict[str, Any]:
        """What the model takes, first images (B, C, H, W) → features by name, and under `logits` what the model returned."""
        self._captured.clear()
        self._recording = True
        logits = self.model(*args, **keywords)
        self._recording = False
        # By the taps and not by what was captured: compiled code is guarded by this module's attributes, and not by the hooks.
        features = {name: tap.arrange(self._captured[name]) for name, tap in self._taps.items()}
        self._captured.clear()
        features["logits"] = logits
        return features

    def close(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def probe(self, shape: tuple[int, int, int], task: Task | None = None) -> dict[str, tuple[int, ...]]:
        """Shapes without the first dimension of all features that methods see, for images of `shape` (C, H, W).

        task: samples the model, looks at what it returned, and says what methods see; without one, they see what a forward gives.

        Runs the model in evaluation mode, so that no statistics change, and finds captured tensors that are written to
        later: those are cloned in their hook from then on.

        Raises:
            RunError: the forward fails, or a wanted module is not reached.
        """
        held = chain(self.model.parameters(), self.model.buffers())  # what runs elsewhere may hold nothing
        images = noise(shape).to(next((one.device for one in held), torch.device("cpu")))
        sample = self.model if task is None else partial(task.sample, self.model)
        with evaluating(self.model), torch.no_grad():
            self._captured.clear()
            self._recording = True
            try:
                # The hooks fire while the model runs; versions are compared at its end.
                versions: dict[str, int] = {}
                with self._versions(versions):
                    logits = sample(images)
            except DistillError:
                raise
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise out_of_memory(self.spec.name, shape) from error
            except Exception as error:
                raise RunError(refusal(f"`{self.spec.name}`", shape, error), hint=advice(self.spec, shape)) from error
            finally:
                self._recording = False
            missing = [name for name in self._taps if name not in self._captured]
            if missing:
                raise RunError(f"`{missing[0]}` of `{self.spec.name}` is not reached in a forward")
            self._cloned |= {name for name, version in versions.items() if self._captured[name]._version != version}
            if self._cloned:  # what was written to is wrong now: look again, with the clones
                self._captured.clear()
                self._recording = True
                logits = sample(images)
                self._recording = False
            self._sample = {name: self._taps[name].arrange(value).clone() for name, value in self._captured.items()}
            self._captured.clear()
        self._sample["logits"] = logits
        if task is not None:
            task.check_output(logits, self.spec.name)
            none = torch.empty(0, dtype=torch.int64)
            seen = task.seen(self._sample, Batch(images, none, none))
            self._sample = {**seen["rows"].features, **seen["images"].features}
        return {name: tuple(value.shape[1:]) for name, value in self._sample.items()}

    @contextmanager
    def _versions(self, versions: dict[str, int]) -> Iterator[None]:
        def note(name: str) -> Callable[..., None]:
            def hook(*_: object) -> None:
                versions[name] = self._captured[name]._version

            return hook

        handles = []
        for name, tap in self._taps.items():
            module = self.model.get_submodule(tap.path)
            register = module.register_forward_pre_hook if "input" in tap.suffixes else module.register_forward_hook
            handles.append(register(note(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def side(self, shapes: Mapping[str, tuple[int, ...]], name: str) -> Side:
        """This model as methods see it, after a `probe`."""
        classifier = self.model.get_submodule(self.spec.classifier) if self.spec.classifier else None
        paths = {name: tap.path for name, tap in self._taps.items()}
        return Side(name, self.model, shapes, stage_names(self.spec), classifier, paths, self._sample)

    def tap(self, name: str) -> Tap:
        """Where a captured feature is taken."""
        return self._taps[name]


def noise(shape: tuple[int, int, int]) -> Tensor:
    """Two images, always the same ones, that no generator in use has to give."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation of a model in evaluation mode uses the batch's statistics for a while, and changes no buffer."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.training and m.track_running_stats]
    for norm in norms:
        # In training mode without tracking, a norm neither reads nor writes its buffers.
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.training, norm.track_running_stats = False, True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets back the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
