"""Finds where a network of timm has its stages, its classifier and the map that is pooled, from one forward without values.

The network is built on torch's `meta` device, so that the largest costs no more than the smallest. timm's `feature_info` names the
modules; what they give is looked at, since some give lists, and tokens or channels-last maps need a suffix.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

CLASSES = 1000
_ACTIVATIONS = (nn.ReLU, nn.ReLU6)
_QUARTERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Anatomy:
    """What is declared of a network.

    stages, classifier: as `distillctl.ModelSpec` has them. parameters: with 1,000 classes. size: side length in pixels of its images.
    fixed: it works at the size for which it is built alone.
    """

    stages: Mapping[str, str]
    classifier: str
    parameters: int
    size: int
    fixed: bool


def anatomy(name: str) -> Anatomy:
    """Of a network that timm knows.

    Raises:
        ValueError: it is not a classifier of images with three channels.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = timm.create_model(name, num_classes=CLASSES).eval()
    channels, size, width = model.default_cfg["input_size"]
    classifier = _classifier(model)
    calls = _Calls(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = model(torch.empty(2, channels, size, width, device="meta"))
    if channels != 3 or size != width or not isinstance(logits, Tensor) or logits.shape != (2, CLASSES):
        raise ValueError(f"`{name}` is not a classifier of square images with three channels")
    stages = _stages(model, calls)
    final = _pooled_map(calls, classifier)
    if final and final not in stages.values():
        stages["final"] = final
    fixed = bool(model.default_cfg.get("fixed_input_size"))
    return Anatomy(stages, classifier, sum(p.numel() for p in model.parameters()), size, fixed)


class _Calls:
    """What each module received and gave in one forward. Tensors are kept, so that each is an object of its own."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.received: dict[str, Any] = {}
        self.gave: dict[str, Any] = {}
        self.count: Counter[str] = Counter()
        for path, module in self.modules.items():
            if getattr(module, "inplace", False) is True:
                module.inplace = False
            module.register_forward_hook(self._hook(path))

    def _hook(self, path: str) -> Any:
        def note(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.count[path] += 1
            self.received[path], self.gave[path] = args[0] if args else None, output

        return note

    def made_by(self, value: Any, among: Iterable[str] | None = None) -> str:
        """The outermost module that gave this very tensor in its only call; empty if there is none."""
        paths = self.modules if among is None else among
        return next((path for path in paths if path and self.gave.get(path) is value and self.count[path] == 1), "")


def _classifier(model: Any) -> str:
    """The path of the one Linear layer that is the classifier; empty for two heads, or one that is no Linear layer."""
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    return next((path for path, module in model.named_modules() if module is found and isinstance(module, nn.Linear)), "")


def _stages(model: Any, calls: _Calls) -> dict[str, str]:
    """As torchvision's models have them here: the last outputs at strides 4, 8, …, or a transformer's after each quarter of its depth.

    Nothing if one of them cannot be taken: the others would stand under names that mean another resolution elsewhere.
    """
    info = list(model.feature_info)
    deep = [entry for entry in info if entry["reduction"] >= 4]
    if len({entry["reduction"] for entry in deep}) == 1 and len(deep) >= 4:
        chosen = [deep[len(deep) * quarter // 4 - 1] for quarter in _QUARTERS]
    else:
        chosen = list({entry["reduction"]: entry for entry in deep}.values())
    stem = [entry for entry in info if entry["reduction"] < 4][-1:]
    taps = {f"stage{number}": _tap(entry, calls) for number, entry in enumerate(chosen, 1)}
    if not all(taps.values()):
        return {}
    before = _tap(stem[0], calls) if stem else ""
    pre = {f"{name}:pre": path for name, tap in taps.items() if (path := _before_activation(tap.partition(":")[0], calls))}
    return {**({"stem": before} if before else {}), **taps, **pre}


def _tap(entry: Mapping[str, Any], calls: _Calls) -> str:
    """Module path and suffix of a square map with the channels that timm states; empty if it does not give one."""
    path, channels = entry["module"], entry["num_chs"]
    value = calls.gave.get(path)
    if not isinstance(value, Tensor) or calls.count[path] != 1:
        return ""
    if value.ndim == 4 and value.shape[1] == channels and value.shape[2] == value.shape[3]:
        return str(path)
    if value.ndim == 4 and value.shape[3] == channels and value.shape[1] == value.shape[2]:
        return f"{path}:nhwc"
    if value.ndim == 3 and value.shape[2] == channels:
        extra = value.shape[1] - math.isqrt(value.shape[1]) ** 2
        if extra in (0, 1, getattr(calls.modules[""], "num_prefix_tokens", 0)):  # a class token, and registers
            return f"{path}:tokens" if extra <= 1 else f"{path}:tokens{extra}"
    return ""


def _before_activation(stage: str, calls: _Calls) -> str:
    """What the last ReLU of a stage receives, if its output is that of the stage."""
    inside = [path for path, module in calls.modules.items() if isinstance(module, _ACTIVATIONS) and path.startswith(f"{stage}.")]
    found = calls.made_by(calls.gave[stage], inside)
    return f"{found}:input" if found else ""


def _pooled_map(calls: _Calls, classifier: str) -> str:
    """The module whose map is averaged to what the classifier receives; empty if the two are not one step apart."""
    if not classifier:
        return ""
    pooled: Any = calls.received[classifier]
    channels = pooled.shape[1]
    for path, module in calls.modules.items():
        if calls.gave.get(path) is pooled and getattr(module, "pool_type", "") == "avg":
            image_map = calls.received[path]
            if isinstance(image_map, Tensor) and image_map.ndim == 4 and (made := calls.made_by(image_map)):
                return made if image_map.shape[1] == channels else f"{made}:nhwc"
    return ""
