"""Heads that take the place of a classifier."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict

import pytest
import torch
from torch import nn

from distillctl.api.method import Head
from distillctl.errors import DataError, RunError
from distillctl.models import heads
from distillctl.models.features import Tapped
from distillctl.testing import TINY_CNN, TINY_VIT
from distillctl.testing.tiny_models import build_tiny

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def layers(width: int, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            projector=nn.Sequential(nn.Conv2d(width, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Identity()),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(1),
            classifier=nn.Linear(6, classes),
        )
    )


@pytest.mark.parametrize(("spec", "feature", "width"), [(TINY_CNN, "final", 32), (TINY_CNN, "stage2", 16), (TINY_VIT, "last", 16)])
def test_logits_come_from_the_head(spec, feature, width) -> None:
    torch.manual_seed(0)
    model, head = build_tiny(spec.name, 4).eval(), layers(width).eval()
    tapped = Tapped(model, spec, [feature])
    maps = tapped(IMAGES)[feature]
    tapped.close()
    heads.install(model, spec, Head(feature, head))
    torch.testing.assert_close(model(IMAGES), head(maps))
    names = Tapped(model, spec, [feature, "head.projector", "pooled", "stages"])
    features = names(IMAGES)
    torch.testing.assert_close(features["head.projector"], head.projector(features[feature]))
    torch.testing.assert_close(features["logits"], model(IMAGES))
    assert features["logits"].shape == (5, 3)


@pytest.mark.parametrize(("spec", "width"), [(TINY_CNN, 32), (TINY_VIT, 16)])
def test_description_rebuilds_it(spec, width) -> None:
    model = build_tiny(spec.name, 4)
    description = heads.install(model, spec, Head("last", layers(width)))
    again = build_tiny(spec.name, 4)
    heads.rebuild(again, spec, json.loads(json.dumps(description)))
    again.load_state_dict(model.state_dict())
    assert str(again.get_submodule(spec.classifier)) == str(model.get_submodule(spec.classifier))
    torch.testing.assert_close(again.eval()(IMAGES), model.eval()(IMAGES), rtol=0, atol=0)


def test_a_deep_copy_has_its_own_hooks() -> None:
    """A moving average is a copy: it must not read what the original saw."""
    model = build_tiny("tiny_cnn", 4)
    heads.install(model, TINY_CNN, Head("last", layers(32)))
    twin = copy.deepcopy(model).eval()
    model.eval()
    expected = model(IMAGES)
    torch.testing.assert_close(twin(IMAGES), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(IMAGES), expected)


def test_compiles_in_one_graph() -> None:
    model = build_tiny("tiny_cnn", 4).eval()
    heads.install(model, TINY_CNN, Head("last", layers(32)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGES), model(IMAGES))


def test_other_layers_and_models_without_a_classifier_are_refused() -> None:
    from dataclasses import replace

    with pytest.raises(RunError, match="may not have a layer of the type GELU"):
        heads.install(build_tiny("tiny_cnn", 4), TINY_CNN, Head("last", nn.Sequential(nn.GELU(), nn.Linear(2, 2))))
    with pytest.raises(RunError, match="`tiny_cnn` declares no classifier"):
        heads.install(build_tiny("tiny_cnn", 4), replace(TINY_CNN, classifier=""), Head("last", layers(32)))


GOOD = {"feature": "stage3", "layers": [{"name": "fc", "type": "linear", "in_features": 4, "out_features": 2, "bias": True}]}


@pytest.mark.parametrize(
    "change",
    [
        {"feature": "nowhere"},
        {"feature": "stage3:wrong"},
        {"layers": None},
        {"layers": [{"name": "fc"}]},
        {"layers": [{"name": "fc", "type": "eval"}]},
        {"layers": [{"name": "fc", "type": "linear", "in_features": "4", "out_features": 2}]},
        {"layers": [{"name": "fc", "type": "linear", "in_features": 10**9, "out_features": 2}]},
        {"layers": [{"name": "fc", "type": "linear", "in_features": 4, "out_features": 2, "device": 1}]},
        {"layers": [{"name": "a.b", "type": "identity"}]},
        {"layers": [{"name": f"x{k}", "type": "identity"} for k in range(100)]},
    ],
    ids=str,
)
def test_a_wrong_description_is_a_data_error(change) -> None:
    heads.rebuild(build_tiny("tiny_cnn", 4), TINY_CNN, GOOD)
    with pytest.raises((DataError,), match="head of the student `tiny_cnn`"):
        heads.rebuild(build_tiny("tiny_cnn", 4), TINY_CNN, {**GOOD, **change})


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(32, 4, 3, dilation=2),
        nn.Conv2d(32, 4, 3, padding_mode="reflect", padding=1),
        nn.Conv2d(32, 4, 3, padding="same"),
        nn.AdaptiveAvgPool2d((None, 1)),
        nn.BatchNorm2d(32, affine=False),
        nn.BatchNorm2d(32, track_running_stats=False),
    ],
    ids=str,
)
def test_a_layer_that_its_description_does_not_give_back_is_refused(layer: nn.Module) -> None:
    """Otherwise the deployed student would not be the one that was trained."""
    with pytest.raises(RunError, match="the head for `tiny_cnn`"):
        heads.install(build_tiny("tiny_cnn", 4), TINY_CNN, Head("last", nn.Sequential(layer)))


def test_a_head_on_what_the_classifier_received() -> None:
    model = build_tiny("tiny_cnn", 4).eval()
    pooled = Tapped(model, TINY_CNN, ["pooled"])
    vectors = pooled(IMAGES)["pooled"]
    pooled.close()
    head = nn.Sequential(OrderedDict(drop=nn.Dropout(0.5), out=nn.Linear(32, 3))).eval()
    description = heads.install(model, TINY_CNN, Head("pooled", head))
    torch.testing.assert_close(model(IMAGES), head(vectors))
    again = build_tiny("tiny_cnn", 4).eval()
    heads.rebuild(again, TINY_CNN, description)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval()(IMAGES), model(IMAGES))
    with pytest.raises(RunError, match="cannot read what the classifier of `tiny_cnn` gives"):
        heads.install(build_tiny("tiny_cnn", 4), TINY_CNN, Head("fc", head))
