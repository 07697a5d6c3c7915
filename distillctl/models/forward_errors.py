"""What is said when a model raises in its forward: which model, for which images, and what to do. Errors of others keep their traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import nn

from distillctl.api.specs import ModelSpec
from distillctl.errors import DistillError, MachineError, PluginError, RunError
from distillctl.plugin.registry import load_options
from distillctl.text import one_line

_ONE_VALUE = "Expected more than 1 value per channel"
_LONGEST = 200
# What may be raised in the middle of a forward and is not the model's: told elsewhere.
_OTHERS = re.compile(
    r"DataLoader worker|not enough memory|can't allocate memory|out of memory|cannot allocate memory|CUDA error", re.IGNORECASE
)


_NO_METHODS: Mapping[str, nn.Module] = MappingProxyType({})


@contextmanager
def explained_forward(
    shape: Sequence[int],
    *models: tuple[str, ModelSpec, nn.Module],
    but: tuple[type[Exception], ...] = (),
    methods: Mapping[str, nn.Module] = _NO_METHODS,
) -> Iterator[None]:
    """Turns what one of these models raises into one sentence.

    shape: (C, H, W) of the images. models: role (`the student `), declaration and module of each. but: errors that are left as they are.
    methods: those of the run by name, to say in which of them batch normalisation was given one value.

    Raises:
        RunError: a model raised, or batch normalisation was given one value.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (DistillError, torch.OutOfMemoryError, MemoryError, *but)) or _OTHERS.search(str(error)):
            raise
        role, spec = next(((role, spec) for role, spec, module in models if _passed(error, module)), ("", None))
        if _ONE_VALUE in str(error):
            inside = next((f"the method `{name}`" for name, method in methods.items() if _passed(error, method)), "a method")
            who = inside if spec is None else f"{role}`{spec.name}`"
            raise RunError(
                f"batch normalisation of {who} cannot train on one image of {_size(shape)}: {one_line(error, _LONGEST)}",
                hint="raise `train.batch_size`, or use fewer processes: each needs two images of a batch",
            ) from error
        if spec is None:
            raise
        raise RunError(refusal(f"{role}`{spec.name}`", shape, error), hint=advice(spec, shape)) from error


def out_of_memory(name: str, shape: Sequence[int]) -> MachineError:
    """What is said when two images are too much for a model."""
    return MachineError(
        f"memory ran out in a forward of `{name}` over two images of {_size(shape)}", hint="choose a smaller model, or smaller images"
    )


def refusal(who: str, shape: Sequence[int], error: Exception) -> str:
    """The sentence: who cannot take which images, and why."""
    why = one_line(error, _LONGEST)
    if not why or not isinstance(error, RuntimeError | ValueError | AssertionError):  # `KeyError: 'x'`
        why = f"{type(error).__name__}: {why}" if why else type(error).__name__
    return f"{who} cannot take images of shape {tuple(shape)}: {why}"


def advice(spec: ModelSpec, shape: Sequence[int]) -> str:
    """What to do where the size may be the reason."""
    own = f"state `image_size = {shape[-1]}` in the table of the model, or give it" if _can_be_built_for(spec, shape[-1]) else "give it"
    return f"{own} images of {spec.input_size} pixels, for which it was designed (`dataset.image_size`, where the data set has it)"


def _can_be_built_for(spec: ModelSpec, size: int) -> bool:
    """Whether an option of the model says for which images it is built, and this size is one."""
    try:
        options = load_options(spec)
        return "image_size" in options.model_fields and bool(options.model_validate({"image_size": size}))
    except (PluginError, ValueError):
        return False


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-2]}×{shape[-1]} pixels"


def _passed(error: BaseException, module: nn.Module) -> bool:
    """Whether the error came from within a call of the module."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_locals.get("self") is module:
            return True
        trace = trace.tb_next
    return False
