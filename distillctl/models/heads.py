"""A head that takes the place of a student's classifier: put in place, described as JSON, and built again from that.

The layers stand where the classifier stood (`fc` becomes `fc.layers.projector` …), so that stages and the rest of the state dict
keep their names. They read a feature of the student instead of what the classifier received. Only the plain layers below can be
in a head: a deployed student is rebuilt from their description, without the package of the method that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distillctl.api.method import Head
from distillctl.api.specs import ModelSpec
from distillctl.errors import DataError, ProfileError, RunError
from distillctl.models.features import Tap, resolve

Description = Mapping[str, Any]
"""`{"feature": "layer4", "layers": [{"name": "projector", "type": "conv2d", …}, …]}`."""

_LAYERS: Mapping[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "conv2d": (nn.Conv2d, ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "bias")),
    "batch_norm2d": (nn.BatchNorm2d, ("num_features", "eps", "momentum")),
    "relu": (nn.ReLU, ()),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "flatten": (nn.Flatten, ("start_dim",)),
    "dropout": (nn.Dropout, ("p",)),
    "linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "identity": (nn.Identity, ()),
}
"""type → class and the arguments that describe it."""
_MOST_LAYERS, _WIDEST = 64, 1 << 16
_PLAIN = "use sizes in numbers, paddings with zeros, no dilation, and norms with weights and statistics"


class ReplacedClassifier(nn.Module):
    """Stands in the classifier's place; not its input is used, but the feature that its hook kept.

    tap: where the feature is taken; None for what the classifier received.
    """

    def __init__(self, layers: nn.Sequential, tap: Tap | None) -> None:
        super().__init__()
        self.layers = layers
        self._tap = tap
        self._kept: Tensor | None = None

    # Hooks are bound methods, so that a deep copy of the model (the moving average) has hooks of its own.
    def keep_output(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook."""
        assert self._tap is not None
        self._kept = self._tap.arrange(output)

    def keep_input(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        assert self._tap is not None
        self._kept = self._tap.arrange(args[0])

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits (B, classes) from the kept feature."""
        kept, self._kept = pooled if self._tap is None else self._kept, None
        assert kept is not None
        logits: Tensor = self.layers(kept)
        return logits


def install(model: nn.Module, spec: ModelSpec, head: Head) -> Description:
    """Puts the head in place of the model's classifier; returns its description.

    Raises:
        RunError: the model declares no classifier, the head has a layer that cannot be described, or it reads the classifier's output.
    """
    if not spec.classifier:
        raise RunError(f"`{spec.name}` declares no classifier, so that no other head can take its place")
    tap = resolve(head.feature, spec, model)
    layers = _describe(head.layers)
    try:
        rebuilt = _build(layers, [0])
    except (TypeError, ValueError) as error:
        raise RunError(f"the head for `{spec.name}` cannot be built again from its description: {error}", hint=_PLAIN) from error
    if str(rebuilt) != str(head.layers):
        raise RunError(f"the head for `{spec.name}` has layers whose description leaves something out", hint=_PLAIN)
    if tap == Tap(spec.classifier):
        raise RunError(
            f"a head cannot read what the classifier of `{spec.name}` gives, whose place it takes", hint="`pooled` is what it received"
        )
    _place(model, spec, head.layers, tap)
    return {"feature": ":".join((tap.path, *tap.suffixes)), "layers": layers}


def rebuild(model: nn.Module, spec: ModelSpec, description: Description) -> None:
    """Puts a head with fresh weights in place of the model's classifier.

    Raises:
        DataError: the description is not one of `install`.
    """
    try:
        layers, tap = _build(description["layers"], [0]), Tap.parse(str(description["feature"]))
        model.get_submodule(tap.path)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ProfileError) as error:
        raise DataError(f"the head of the student `{spec.name}` is not described as it should be: {error}") from error
    _place(model, spec, layers, tap)


def _place(model: nn.Module, spec: ModelSpec, layers: nn.Sequential, tap: Tap) -> None:
    # An activation in place would overwrite what is kept.
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    classifier = ReplacedClassifier(layers, None if tap.path == spec.classifier else tap)
    source = model.get_submodule(tap.path)
    if tap.path == spec.classifier:
        pass
    elif "input" in tap.suffixes:
        source.register_forward_pre_hook(classifier.keep_input)
    else:
        source.register_forward_hook(classifier.keep_output)
    model.set_submodule(spec.classifier, classifier)


def _describe(layers: nn.Sequential) -> list[dict[str, Any]]:
    return [{"name": name, **_describe_one(layer)} for name, layer in layers.named_children()]


def _describe_one(layer: nn.Module) -> dict[str, Any]:
    if type(layer) is nn.Sequential:
        return {"type": "sequential", "layers": _describe(layer)}
    for kind, (cls, names) in _LAYERS.items():
        if type(layer) is cls:
            return {"type": kind, **{name: _plain(getattr(layer, name)) for name in names}}
    allowed = ", ".join(cls.__name__ for cls, _ in _LAYERS.values())
    raise RunError(f"a head may not have a layer of the type {type(layer).__name__}", hint=f"allowed: {allowed}, Sequential")


def _plain(value: object) -> object:
    """An argument as JSON data; a bias is there or not."""
    if value is None or isinstance(value, Tensor):
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def _build(entries: Sequence[Mapping[str, Any]], count: list[int]) -> nn.Sequential:
    result = nn.Sequential()
    for entry in entries:
        count[0] += 1
        if count[0] > _MOST_LAYERS:
            raise ValueError(f"more than {_MOST_LAYERS} layers")
        rest = {key: _checked(value) for key, value in entry.items() if key not in ("name", "type", "layers")}
        if entry["type"] == "sequential":
            layer: nn.Module = _build(entry["layers"], count)
        else:
            cls, names = _LAYERS[entry["type"]]
            if set(rest) - set(names):
                raise ValueError(f"{entry['type']} has no {', '.join(sorted(set(rest) - set(names)))}")
            make: Callable[..., nn.Module] = cls
            layer = make(**rest)
        result.add_module(entry["name"], layer)
    return result


def _checked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_checked(v) for v in value)
    if not isinstance(value, int | float) or not 0 <= value <= _WIDEST:
        raise ValueError(f"{value!r} is no size")
    return value
