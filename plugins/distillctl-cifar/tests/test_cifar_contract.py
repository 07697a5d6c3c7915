"""Every kind of network of the zoo keeps the contract; the deeper ones, which are the same code with more blocks, its structural part."""

import pytest
import torch

from distillctl.models.features import Tapped
from distillctl.testing.models import ModelContract
from distillctl_cifar.models import create
from distillctl_cifar.zoo import SPECS

pytestmark = pytest.mark.slow

WHOLE = (
    "resnet8", "resnet8x4", "wrn_16_1", "wrn_16_2", "vgg8", "vgg11", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet18", "ResNet50",
)  # fmt: skip


class TestModels(ModelContract):
    specs = tuple(s for s in SPECS if s.name in WHOLE)


@pytest.mark.parametrize("spec", [s for s in SPECS if s.name not in WHOLE], ids=lambda s: s.name)
def test_structure_of_the_deeper_ones(spec):
    with torch.device("meta"):  # shapes and graph, no numbers
        model = create(spec.name, 7).train()
        names = [*spec.stages, "pooled"]
        features = Tapped(model, spec, names)(torch.empty(2, 3, 32, 32))
    assert set(features) == {*names, "logits"}
    features["logits"].sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert torch.nn.Linear is type(model.get_submodule(spec.classifier))
