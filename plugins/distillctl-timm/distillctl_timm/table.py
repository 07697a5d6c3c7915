"""What is known of timm's networks without it: `models.json`, written by `tests/make_table.py`; of others the installed timm is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distillctl import ModelSpec, PluginError, WeightsInput

DEFAULT = "default"
"""The name of the first of a network's weights."""
_OPTIONS = "distillctl_timm.options"
RESNET_STAGES, RESNET_CLASSIFIER = ("layer1", "layer2", "layer3", "layer4"), "fc"
"""Of a ResNet: networks that have these, timm's class of that name, can end after any of them."""


def names() -> dict[str, str]:
    """Name → parameters, size and weights, in a line."""
    return {name: _summary(row[2], row[3], list(row[5])) for name, row in _table()["models"].items()}


def find(name: str) -> ModelSpec | None:
    """The declaration of a network: from the table, or else from the installed timm, which takes seconds; None if neither knows it.

    Raises:
        PluginError: timm has it, but it is not a classifier of images.
    """
    table = _table()
    row = table["models"].get(name)
    if row is not None:
        stages, classifier, parameters, size, fixed, weights = row
        inputs = {tag: table["inputs"][number] for tag, number in weights.items()}
        return _spec(name, table["stages"][stages], classifier, parameters, size, bool(fixed), inputs)
    if not _installed_timm_has(name):
        return None
    from distillctl_timm.anatomy import anatomy
    from distillctl_timm.pretrained import described

    try:
        found = anatomy(name)
    except ValueError as error:
        raise PluginError(str(error)) from error
    return _spec(name, found.stages, found.classifier, found.parameters, found.size, found.fixed, described(name))


@cache
def _table() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
    return data


def _summary(parameters: int, size: int, weights: Sequence[str]) -> str:
    shown = f"; weights {', '.join(weights[:2])}{' and more' if len(weights) > 2 else ''}" if weights else "; no pretrained weights"
    return f"{parameters / 1e6:,.1f} M parameters, {size} px{shown}"


def _spec(
    name: str,
    stages: Mapping[str, str],
    classifier: str,
    parameters: int,
    size: int,
    fixed: bool,
    weights: Mapping[str, Sequence[Any]],
) -> ModelSpec:
    inputs = {
        tag: WeightsInput(mean=tuple(mean), std=tuple(std), size=pixels, crop=crop, interpolation=interpolation, license=license_)
        for tag, (mean, std, pixels, crop, interpolation, license_) in weights.items()
    }
    if inputs:
        inputs = {DEFAULT: next(iter(inputs.values())), **inputs}
    deep = tuple(path for stage, path in stages.items() if stage.startswith("stage") and ":" not in stage)
    resnet = deep == RESNET_STAGES and classifier == RESNET_CLASSIFIER
    return ModelSpec(
        name=name,
        namespace="timm",
        summary=_summary(parameters, size, list(weights)),
        paper="Wightman 2019, PyTorch Image Models",
        implementation="distillctl_timm.builder:build",
        options=f"{_OPTIONS}:{'FixedSizeOptions' if fixed else 'ResNetOptions' if resnet else 'TimmOptions'}",
        stages=dict(stages),
        classifier=classifier,
        weights=tuple(inputs),
        weights_loader="distillctl_timm.pretrained:load_weights" if inputs else "",
        weights_input=inputs,
        input_size=size,
        parameters=parameters,
    )


def _installed_timm_has(name: str) -> bool:
    """Whether the sources of timm define a network of this name; timm is not imported, which would take seconds to refuse a typo."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None or not name.isidentifier():
        return False
    definition = re.compile(rf"^@register_model\ndef {name}\(", re.MULTILINE)
    return any(definition.search(path.read_text(encoding="utf-8")) for path in Path(spec.origin).parent.glob("models/*.py"))
