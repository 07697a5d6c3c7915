"""Pretrained weights by name, as torchvision has them: of the backbone from ImageNet, or of the whole detector from COCO; and those of a
backbone from a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn
from torchvision.models import detection  # type: ignore[import-untyped]
from torchvision.models.detection.retinanet import _v1_to_v2_weights  # type: ignore[import-untyped]

from distillctl import DataError, Options, ProfileError
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.one_stage import FCOS, RetinaNet, SSDLite
from distillctl_detection.options import FasterRCNNOptions, FCOSOptions, RetinaNetOptions, SSDLiteOptions
from distillctl_detection.timm_backbone import PREFIX

_BODY = "backbone.body."
_EPS = 1e-5
_COUNTER = ".num_batches_tracked"
_SPLIT = 13
"""The block of a MobileNetV3-large at whose first layer SSDlite cuts it in two."""
_RESNET = re.compile(r"(conv1|bn1|layer\d)\.")
"""Of a ResNet, which has no part `features`."""
_MODELS: Mapping[str, Any] = {"fasterrcnn": FasterRCNN, "retinanet": RetinaNet, "fcos": FCOS, "ssdlite": SSDLite}
_PUBLISHED: Mapping[str, tuple[Any, Options, tuple[str, ...]]] = {
    "fasterrcnn": (
        detection.FasterRCNN_ResNet50_FPN_Weights,
        FasterRCNNOptions(frozen_norm=True),
        ("backbone", "width", "head_width", "anchor_size", "frozen_norm"),
    ),
    "retinanet": (
        detection.RetinaNet_ResNet50_FPN_Weights,
        RetinaNetOptions(frozen_norm=True),
        ("backbone", "width", "anchor_size", "frozen_norm"),
    ),
    "fcos": (detection.FCOS_ResNet50_FPN_Weights, FCOSOptions(frozen_norm=True), ("backbone", "width", "frozen_norm")),
    "ssdlite": (detection.SSDLite320_MobileNet_V3_Large_Weights, SSDLiteOptions(), ("width_mult", "reduced_tail")),
}
"""Of each detector torchvision's weights, and the options that they are for."""


def load(name: str, weights: str, options: Any) -> dict[str, Tensor]:
    """A state dict of the whole detector. `imagenet`: what lies behind the backbone is new. `coco`: of the 80 classes.

    Raises:
        ProfileError: there are no such weights for these options.
    """
    if weights == "imagenet":
        if name != "ssdlite" and options.backbone.startswith(PREFIX):
            raise ProfileError("weights of timm are not had by name here", hint="name a file by `backbone_checkpoint`")
        network = "mobilenet_v3_large" if name == "ssdlite" else options.backbone
        if name == "ssdlite":
            _require(options, SSDLiteOptions(reduced_tail=False), ("width_mult", "reduced_tail"), "imagenet")
        found = torchvision.models.get_model_weights(network).IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        return with_backbone(found, _MODELS[name](1, options))
    published, expected, shape = _PUBLISHED[name]
    _require(options, expected, shape, "coco")
    state = published.COCO_V1.get_state_dict(progress=False, check_hash=True)
    return of_classes(name, state, published.COCO_V1.meta["categories"])


def of_backbone(name: str, network: Mapping[str, Tensor], options: Any) -> dict[str, Tensor]:
    """The tensors of a detector's backbone, from those of a classification network.

    Raises:
        DataError: they are of another network.
    """
    with torch.device("meta"):  # for names and shapes
        return _backbone(network, _MODELS[name](1, options).state_dict())


def _require(options: Options, published: Options, shape: Iterable[str], weights: str) -> None:
    """Raises where options are others than those that weights are for."""
    if wrong := [option for option in shape if getattr(options, option) != getattr(published, option)]:
        stated = getattr(published, wrong[0])
        raise ProfileError(
            f"the weights `{weights}` are of a detector with `{wrong[0]} = {str(stated).lower() if isinstance(stated, bool) else stated}`",
            hint="state it" if weights == "imagenet" else "state it, or start from `imagenet`",
        )


def with_backbone(network: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a new detector whose backbone has the weights of a classification network of torchvision."""
    state: dict[str, Tensor] = model.state_dict()
    return {**state, **_backbone(network, state)}


def _backbone(network: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone by a detector's names, of which `state` has the shapes. The network's own head is left out.

    Raises:
        DataError: tensors are missing, of another shape, or of no use.
    """
    names = {name: theirs for name in state if (theirs := _in_network(name)) and not name.endswith(_COUNTER)}
    missing = [theirs for theirs in names.values() if theirs not in network]
    different = [theirs for name, theirs in names.items() if theirs in network and network[theirs].shape != state[name].shape]
    parts = {theirs.partition(".")[0] for theirs in names.values()}  # the network's head is none of them
    unknown = [theirs for theirs in network.keys() - names.values() if not theirs.endswith(_COUNTER) and theirs.partition(".")[0] in parts]
    told = (("missing", missing), ("of another shape", different), ("unknown to it", unknown))
    if problems := [f"{len(found)} {what} (first `{min(found)}`)" for what, found in told if found]:
        raise DataError(
            f"the weights do not fit the backbone of {len(names)} tensors: {', '.join(problems)}", hint="is it another network?"
        )
    return {name: network[theirs] for name, theirs in names.items()}


def _in_network(name: str) -> str:
    """The name that a tensor of a detector has in a classification network; empty for what is not the backbone."""
    if name.startswith(_BODY):
        own = name.removeprefix(_BODY)
        if own.startswith("network."):  # timm joins the names of what it takes out of a container
            return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", own.removeprefix("network."))
        return own if _RESNET.match(own) else f"features.{own}"
    if not name.startswith("backbone.features."):
        return ""
    part, block, rest = name.removeprefix("backbone.features.").split(".", 2)
    number = int(block) + (_SPLIT if part == "1" else 0)
    if number != _SPLIT:
        return f"features.{number}.{rest}"
    if part == "0":
        return f"features.{number}.block.0.{rest}"
    return f"features.{number}.block.{rest}"


def of_classes(name: str, state: Mapping[str, Tensor], categories: list[str]) -> dict[str, Tensor]:
    """The weights of torchvision with the classes that there are, in their order, without the gaps between their ids; with the background
    where there is a softmax.

    Some were trained with a frozen norm that adds no ε to the variance; ours adds one, which is taken off here.
    """
    kept = [number for number, title in enumerate(categories) if title != "N/A"]
    result = dict(state)
    if name == "retinanet":
        for head in ("classification_head", "regression_head"):
            _v1_to_v2_weights(result, f"head.{head}.")
    if name == "fasterrcnn":
        layers = {"roi_heads.box_predictor.cls_score": 1, "roi_heads.box_predictor.bbox_pred": 4}
        for layer, numbers in layers.items():
            for part in (f"{layer}.weight", f"{layer}.bias"):
                result[part] = state[part].unflatten(0, (len(categories), numbers))[kept].flatten(0, 1)
    else:
        front = "head.classification_head."
        own = kept if name == "ssdlite" else kept[1:]
        last = [f"{front}module_list.{level}.1" for level in range(6)] if name == "ssdlite" else [f"{front}cls_logits"]
        for part in (f"{layer}.{kind}" for layer in last for kind in ("weight", "bias")):
            result[part] = state[part].unflatten(0, (-1, len(categories)))[:, own].flatten(0, 1)
    without_eps = name in ("fasterrcnn", "retinanet")
    return {key: value - _EPS if without_eps and key.endswith("running_var") else value for key, value in result.items()}
