"""The CIFAR model zoo. It needs torch alone, nothing of distillctl:

    from distillctl_cifar.models import resnet8x4
    model = resnet8x4(num_classes=100)

Every function takes the number of classes and gives a network for RGB images of any size from 32 pixels; its forward
returns logits. Attribute names, and so the keys of state dicts, are those of RepDistiller and mdistiller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from distillctl_cifar.models.mobilenetv2 import MobileNetV2
from distillctl_cifar.models.resnet import resnet8, resnet8x4, resnet14, resnet20, resnet32, resnet32x4, resnet44, resnet56, resnet110
from distillctl_cifar.models.resnet_wide import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from distillctl_cifar.models.shufflenetv1 import ShuffleV1
from distillctl_cifar.models.shufflenetv2 import ShuffleV2
from distillctl_cifar.models.vgg import vgg8, vgg11, vgg13, vgg16, vgg19
from distillctl_cifar.models.wrn import wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

_ALL: tuple[Callable[[int], nn.Module], ...] = (
    resnet8, resnet14, resnet20, resnet32, resnet44, resnet56, resnet110, resnet8x4, resnet32x4,
    wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2,
    vgg8, vgg11, vgg13, vgg16, vgg19,
    MobileNetV2, ShuffleV1, ShuffleV2,
    ResNet18, ResNet34, ResNet50, ResNet101, ResNet152,
)  # fmt: skip

MODELS: Mapping[str, Callable[[int], nn.Module]] = {function.__name__: function for function in _ALL}
"""Name → function that builds the model from the number of classes."""


def create(name: str, num_classes: int = 100) -> nn.Module:
    """Builds a model by name.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called `{name}`; there are {', '.join(MODELS)}")
    return MODELS[name](num_classes)


__all__ = [
    "MODELS", "MobileNetV2", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "ShuffleV1", "ShuffleV2", "create",
    "resnet8", "resnet8x4", "resnet14", "resnet20", "resnet32", "resnet32x4", "resnet44", "resnet56", "resnet110",
    "vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2",
]  # fmt: skip
