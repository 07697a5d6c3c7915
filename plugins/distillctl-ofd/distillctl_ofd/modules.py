"""The connectors, and the batch normalisations whose parameters describe what a ReLU receives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from distillctl import LenientBatchNorm2d, RunError, Side
from distillctl_ofd.losses import negative_means

_ACTIVATIONS = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.Hardswish, nn.GELU, nn.Mish)  # ReLU6 is a Hardtanh
_SHORTCUTS = ("downsample", "shortcut")


def connector(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    """A convolution without bias that keeps the size, with weights from N(0, 2 / (k² · outputs)), and batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / (kernel_size**2 * outputs)))
    return nn.Sequential(conv, LenientBatchNorm2d(outputs))


def margins_of(norm: _BatchNorm) -> Tensor:
    """The margins (C,), float32, of a batch normalisation; γ = 1 and β = 0 where it learns none."""
    gamma = torch.ones(norm.num_features) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(gamma) if norm.bias is None else norm.bias.detach()
    return negative_means(gamma, beta).float()


def find_norm(model: nn.Module, path: str, channels: int, *, before: bool = False) -> _BatchNorm | None:
    """The batch normalisation of this width that a feature, taken at a module path, went through last; None if there is no sure one.

    It is the module itself, or the last one inside of it, or for an activation the last one inside of its parent. Modules count in the
    order in which they were registered, without those of a shortcut (`downsample`, `shortcut`). Where a convolution comes
    after it there is none: such a map is not a normalised one.

    A block that calls one ReLU several times may have registered it before the last of its layers. So what comes after an activation
    counts too, unless its parent is a Sequential or has more activations there.

    before: the feature is what the module receives; for all but activations there is then no sure one.
    """
    module = model.get_submodule(path)
    if not isinstance(module, _ACTIVATIONS):
        return None if before else _last(_main_path(module), channels)
    parent = model.get_submodule(path.rpartition(".")[0])
    members = _main_path(parent)
    at = members.index(module)
    earlier, later = members[:at], members[at + 1 :]
    if isinstance(parent, nn.Sequential) or any(isinstance(one, _ACTIVATIONS) for one in later):
        return _last(earlier, channels)
    return _last(later, channels) or _last(earlier, channels)


def norms_before(side: Side, names: Sequence[str], chosen: Sequence[str]) -> list[_BatchNorm]:
    """For each of these features of the teacher its batch normalisation: the module that `chosen` names, or the one that is found.

    Raises:
        RunError: none is found; or `chosen` has too few or too many paths, or one that is not a batch normalisation of the feature's width.
    """
    if not chosen:
        return [_found(side, name) for name in names]
    if len(chosen) != len(names):
        raise RunError(
            f"`margin_norms` has {len(chosen)} paths, but `ofd` compares {len(names)} stages of `{side.name}`: "
            f"{', '.join(f'`{name}`' for name in names)}",
            hint="name one batch normalisation for each of them, shallow to deep, or none",
        )
    return [_named(side, name, path) for name, path in zip(names, chosen, strict=True)]


def _found(side: Side, name: str) -> _BatchNorm:
    channels = side.channels(name)
    # A path does not say whether the feature is what the module receives; a name given by hand does, one such as `stage1:pre` does not.
    norm = find_norm(side.model, side.paths[name], channels, before="input" in name.split(":"))
    if norm is None:
        raise RunError(
            f"`ofd` finds no batch normalisation of {channels} channels right before `{name}` of the teacher `{side.name}`",
            hint="name the modules in `margin_norms`, one for each compared stage, or choose other `teacher_stages`",
        )
    return norm


def _named(side: Side, name: str, path: str) -> _BatchNorm:
    channels, norm = side.channels(name), dict(side.model.named_modules()).get(path)
    if not isinstance(norm, _BatchNorm) or norm.num_features != channels:
        what = "does not exist" if norm is None else f"is a {type(norm).__name__}"
        if isinstance(norm, _BatchNorm):
            what = f"has {norm.num_features} channels"
        raise RunError(
            f"`{path}` of the teacher `{side.name}` in `margin_norms` {what}, but must be a batch normalisation of the {channels} "
            f"channels of `{name}`",
            hint="the paths belong to the compared stages in their order, shallow to deep; without any, they are looked for",
        )
    return norm


def _main_path(module: nn.Module) -> list[nn.Module]:
    """The module and all inside of it in the order of registration, but those of shortcuts."""
    return [one for name, one in module.named_modules() if not any(word in name.lower() for word in _SHORTCUTS)]


def _last(members: Sequence[nn.Module], channels: int) -> _BatchNorm | None:
    found = None
    for one in members:
        if isinstance(one, _BatchNorm) and one.num_features == channels:
            found = one
        elif isinstance(one, _ConvNd):
            found = None
    return found
