"""Builds networks of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillctl import Options, ProfileError, RunError, end_after
from distillctl_timm.table import RESNET_CLASSIFIER, RESNET_STAGES

if TYPE_CHECKING:
    from torch import nn

_KEYWORDS = {"dropout": "drop_rate", "stochastic_depth": "drop_path_rate", "image_size": "img_size"}


def build(name: str, num_classes: int, options: Options) -> nn.Module:
    """A network of timm with fresh weights; logits (B, num_classes).

    Raises:
        RunError: timm is not installed.
        ProfileError: the network does not take an option.
    """
    try:
        import timm
    except ImportError as error:
        raise RunError(f"`timm/{name}` needs timm: {error}", hint="pip install timm") from error
    given = {key: value for key, value in options.model_dump().items() if value is not None}
    stages = given.pop("stages", None)
    keywords: dict[str, Any] = {_KEYWORDS[key]: value for key, value in given.items()}
    try:
        model: Any = timm.create_model(name, num_classes=num_classes, **keywords)
    except TypeError as error:
        refused = next((key for key in given if f"'{_KEYWORDS[key]}'" in str(error)), "")
        if not refused:
            raise
        raise ProfileError(f"`timm/{name}` takes no `{refused}`: timm builds it without `{_KEYWORDS[refused]}`") from error
    if stages is not None:
        channels = {entry["module"]: entry["num_chs"] for entry in model.feature_info}
        end_after(model, stages, RESNET_STAGES, RESNET_CLASSIFIER, channels[f"layer{stages}"])
    built: nn.Module = model
    return built
