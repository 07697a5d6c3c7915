"""`stages = N`: the beginning of a ResNet with a classifier of its own."""

from __future__ import annotations

import pytest
import torch

from distillctl import RunError
from distillctl.build.models import build_model
from distillctl.models.features import Tapped
from distillctl.testing import options_of
from distillctl_cifar.builder import DropoutLinear, build
from distillctl_cifar.model_options import ResNetOptions
from distillctl_cifar.zoo import SPECS

BY_NAME = {spec.name: spec for spec in SPECS}


@pytest.mark.parametrize(
    ("name", "stages", "width"), [("resnet8", 1, 16), ("resnet8x4", 2, 128), ("ResNet18", 3, 256), ("ResNet50", 1, 256)]
)
def test_the_beginning_of_a_resnet(name, stages, width):
    spec = BY_NAME[name].ending_after(stages)
    model = build(name, 5, options_of(spec, stages=stages))
    assert model.get_submodule(spec.classifier).weight.shape == (5, width)
    names = [f"stage{number}" for number in range(1, stages + 1)]
    assert {stage for stage in spec.stages if ":" not in stage} == {"stem", *names}
    features = Tapped(model.eval(), spec, [*spec.stages, "last", "pooled"])(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(features["last"].mean((2, 3)), features["pooled"])
    assert torch.equal(features["last"], features[names[-1]])
    features["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    whole = build(name, 5).state_dict()
    assert {key for key in model.state_dict() if not key.startswith(spec.classifier)} < whole.keys()


def test_with_dropout_and_with_all_stages():
    model = build("resnet8", 5, ResNetOptions(stages=2, dropout=0.5))
    assert isinstance(model.fc, DropoutLinear)
    assert model.fc.in_features == 32
    assert build("resnet8", 5, ResNetOptions(stages=3)).fc.in_features == 64


def test_wide_resnets_do_not_have_it_and_too_many_are_refused():
    assert not hasattr(options_of(BY_NAME["wrn_16_1"]), "stages")

    class Task:
        outputs = 5

        @staticmethod
        def build(builder, name, outputs, options):
            return builder(name, outputs, options)

    with pytest.raises(RunError, match="the model `resnet8` cannot be built: it has 3 stages, not 4"):
        build_model(Task, BY_NAME["resnet8"], ResNetOptions(stages=4))
