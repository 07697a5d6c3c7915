"""Pretrained weights by name: of the backbone from ImageNet, or of the whole detector from COCO, as torchvision has them."""

from __future__ import annotations

import torchvision  # type: ignore[import-untyped]
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights  # type: ignore[import-untyped]

from distillctl import ProfileError
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions

_BODY = "backbone.body."
_EPS = 1e-5


def load(_name: str, weights: str, options: FasterRCNNOptions) -> dict[str, Tensor]:
    """A state dict of the whole detector. `imagenet`: what lies behind the backbone is new. `coco`: of the 80 classes.

    Raises:
        ProfileError: there are no such weights for these options.
    """
    if weights == "imagenet":
        network = torchvision.models.get_model_weights(options.backbone).IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        return with_backbone(network, options)
    published = FasterRCNNOptions(frozen_norm=True)
    shape = ("backbone", "width", "head_width", "anchor_size", "frozen_norm")
    if wrong := [option for option in shape if getattr(options, option) != getattr(published, option)]:
        stated = getattr(published, wrong[0])
        raise ProfileError(
            f"the weights `coco` are of a detector with `{wrong[0]} = {str(stated).lower() if isinstance(stated, bool) else stated}`",
            hint="state it, or start from `imagenet`",
        )
    found = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    return of_classes(found.get_state_dict(progress=False, check_hash=True), found.meta["categories"])


def with_backbone(network: dict[str, Tensor], options: FasterRCNNOptions) -> dict[str, Tensor]:
    """The state dict of a new detector whose backbone has the weights of a classification network of torchvision."""
    state: dict[str, Tensor] = FasterRCNN(1, options).state_dict()
    for name in state:
        own = name.removeprefix(_BODY)
        if name.startswith(_BODY):
            state[name] = network[own] if own in network else network[f"features.{own}"]
    return state


def of_classes(state: dict[str, Tensor], categories: list[str]) -> dict[str, Tensor]:
    """The weights of torchvision with the background and the classes that there are, in their order, without the gaps between their ids.

    They were trained with a frozen norm that adds no ε to the variance; ours adds one, which is taken off here.
    """
    kept = [number for number, name in enumerate(categories) if name != "N/A"]
    predictor = "roi_heads.box_predictor."
    result = dict(state)
    for part in ("weight", "bias"):
        result[f"{predictor}cls_score.{part}"] = state[f"{predictor}cls_score.{part}"][kept]
        boxes = state[f"{predictor}bbox_pred.{part}"].unflatten(0, (len(categories), 4))
        result[f"{predictor}bbox_pred.{part}"] = boxes[kept].flatten(0, 1)
    return {name: value - _EPS if name.endswith("running_var") else value for name, value in result.items()}
