from __future__ import annotations

import copy

import pytest
import torch

from distillctl.testing import options_of
from distillctl_cifar.builder import DropoutLinear, build
from distillctl_cifar.zoo import SPECS

SMALL = [spec for spec in SPECS if spec.name in ("resnet8", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV2")]


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_dropout_acts_in_training_alone_and_adds_no_weights(spec):
    plain, dropping = (build(spec.name, 5, options_of(spec, dropout=p)) for p in (0.0, 0.5))
    assert not isinstance(plain.get_submodule(spec.classifier), DropoutLinear)
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    dropping.load_state_dict(plain.state_dict())
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(dropping.eval()(images), plain.eval()(images))
    classifier = dropping.get_submodule(spec.classifier).train()
    torch.manual_seed(0)
    first, second = dropping(images), dropping(images)
    assert not torch.allclose(first, second)
    assert copy.deepcopy(classifier).p == 0.5
