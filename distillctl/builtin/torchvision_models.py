"""Builds torchvision's classifiers and fetches their pretrained weights."""

from __future__ import annotations

import re
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from distillctl.api.layers import end_after
from distillctl.api.options import Options
from distillctl.errors import DataError, ProfileError
from distillctl.weights.state_dict import read_state_dict, torchvision_names

# Our option → torchvision's keyword, where they are not the same.
_KEYWORDS = {"stochastic_depth": "stochastic_depth_prob"}


def build(name: str, num_classes: int, options: Options) -> nn.Module:
    """A model of torchvision with fresh weights; logits (B, num_classes) in training as in evaluation.

    GoogLeNet and Inception v3 come without auxiliary heads, whose outputs torchvision returns beside the logits.

    Raises:
        ProfileError: the image size does not suit the model.
    """
    keywords: dict[str, Any] = {_KEYWORDS.get(key, key): value for key, value in options.model_dump().items() if value is not None}
    if name.startswith("densenet") and "dropout" in keywords:
        keywords["drop_rate"] = keywords.pop("dropout")
    stages, small_images = keywords.pop("stages", None), keywords.pop("small_images", None)
    if name in ("googlenet", "inception_v3"):
        keywords.update(aux_logits=False, init_weights=True)
    if name == "maxvit_t":
        keywords["input_size"] = (keywords["image_size"],) * 2
        del keywords["image_size"]
    if name.startswith("vit_"):
        patch = int(name.rpartition("_")[2])
        if keywords["image_size"] % patch:
            raise ProfileError(f"`image_size` of `{name}` must be a multiple of its patch of {patch} pixels, not {keywords['image_size']}")
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **keywords)
    if small_images:
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does
        model.maxpool = nn.Identity()
    if stages is not None:
        end_after(model, stages, ("layer1", "layer2", "layer3", "layer4"), "fc")
    return model


def load_weights(name: str, weights: str) -> dict[str, Tensor]:
    """The state dict of pretrained weights, from torch's cache or downloaded into it, under today's names of the tensors.

    name: a model of torchvision. weights: a member of its enum, such as `IMAGENET1K_V1`.

    Raises:
        DataError: no such weights; or they are not in the cache and cannot be downloaded (the message says where to put the
            file); or the file is damaged.
    """
    members = torchvision.models.get_model_weights(name).__members__
    if weights not in members:
        raise DataError(
            f"`{name}` has no weights called `{weights}`", hint=f"torchvision {torchvision.__version__} has {', '.join(members)}"
        )
    path = _fetch(members[weights].url)
    return torchvision_names(read_state_dict(path))


def published_top1(name: str) -> dict[str, float]:
    """Top-1 accuracy on ImageNet's validation images of a model's weights, by their names, as torchvision states it."""
    results = {member.name: member.meta["_metrics"].get("ImageNet-1K", {}) for member in torchvision.models.get_model_weights(name)}
    return {weights: round(figures["acc@1"] / 100, 5) for weights, figures in results.items() if "acc@1" in figures}


def _fetch(url: str) -> Path:
    """The file behind a URL of torchvision in torch's cache."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if path.exists():
        return path
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)  # torchvision's files carry the start of their sha256 in the name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=sys.stderr.isatty())
    except (OSError, HTTPException, RuntimeError) as error:  # urllib's errors are OSErrors; a wrong hash is a RuntimeError
        raise DataError(
            f"the pretrained weights cannot be downloaded from {url}: {error}",
            hint=f"without a network, fetch the file elsewhere and put it at {path}",
        ) from error
    return path
