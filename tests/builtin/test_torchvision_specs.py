"""What is declared of torchvision's models is true: names, weights, sizes, stages, on the meta device."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights, list_models
from torchvision.models.regnet import BlockParams

from distillctl.api.options import Options
from distillctl.builtin import torchvision as declared
from distillctl.builtin.torchvision_models import build
from distillctl.models.features import Tapped, stage_names
from distillctl.plugin.registry import load

SPECS = {spec.name: spec for spec in declared.register_model()}

# The first of each family, and every model on the meta device with the slow tests.
FAMILIES = {spec.summary: name for name, spec in reversed(SPECS.items())}.values()
MODELS = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]

# Weights of a backbone that torchvision ships without a usable classifier.
NO_CLASSIFIER = {"vgg16": {"IMAGENET1K_FEATURES"}}

# Channels of stage1 … stageN as the papers give them.
CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "wide_resnet50_2": (256, 512, 1024, 2048),
    "vgg16": (256, 512, 512, 512),
    "vgg19_bn": (256, 512, 512, 512),
    "alexnet": (64, 192, 256, 256),
    "densenet121": (256, 512, 1024, 1024),
    "googlenet": (192, 480, 832, 1024),
    "inception_v3": (192, 288, 768, 2048),
    "squeezenet1_0": (256, 512, 512),
    "squeezenet1_1": (128, 256, 512),
    "mobilenet_v2": (24, 32, 96, 1280),
    "mobilenet_v3_small": (16, 24, 48, 576),
    "mobilenet_v3_large": (24, 40, 112, 960),
    "mnasnet1_0": (24, 40, 96, 1280),
    "shufflenet_v2_x1_0": (24, 116, 232, 1024),
    "efficientnet_b0": (24, 40, 112, 1280),
    "efficientnet_v2_s": (48, 64, 160, 1280),
    "efficientnet_v2_m": (48, 80, 176, 1280),
    "regnet_y_400mf": (48, 104, 208, 440),
    "convnext_tiny": (96, 192, 384, 768),
    "swin_t": (96, 192, 384, 768),
    "swin_v2_b": (128, 256, 512, 1024),
    "maxvit_t": (64, 128, 256, 512),
    "vit_b_32": (768, 768, 768, 768),
    "vit_h_14": (1280, 1280, 1280, 1280),
}


@pytest.fixture(autouse=True)
def real_arithmetic_in_regnet(monkeypatch):
    """RegNet computes its widths with tensors, which have no values on the meta device."""
    original = BlockParams.from_init_params.__func__

    def on_cpu(cls, *arguments, **keywords):
        with torch.device("cpu"):
            return original(cls, *arguments, **keywords)

    monkeypatch.setattr(BlockParams, "from_init_params", classmethod(on_cpu))


def on_meta(spec):
    with torch.device("meta"):
        return build(spec.name, 7, load(spec.options, spec.name)() if spec.options else Options())


def test_declaring_imports_no_torch():
    code = (
        "import sys; from distillctl.builtin.torchvision import register_model; register_model();"
        "print([m for m in ('torch', 'torchvision', 'pydantic', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_classifier_is_declared_once():
    assert sorted(spec.name for spec in declared.register_model()) == sorted(list_models(module=torchvision.models))


@pytest.mark.parametrize("name", SPECS)
def test_weights_and_size(name):
    enum = get_model_weights(name)
    assert set(SPECS[name].weights) == {w.name for w in enum} - NO_CLASSIFIER.get(name, set())
    sizes = [weights.transforms.keywords["crop_size"] for weights in enum]
    assert SPECS[name].input_size in sizes
    assert SPECS[name].input_size == min(sizes) or name.startswith("efficientnet")
    seen = SPECS[name].weights_input
    assert set(seen) == set(SPECS[name].weights)
    for weights, told in seen.items():
        transforms = enum[weights].transforms()
        assert [list(told.mean), list(told.std), [told.size]] == [transforms.mean, transforms.std, transforms.crop_size]
    if name != "inception_v3":  # whose figure has the auxiliary head in it
        counted = {w.meta["num_params"] for w in enum if w.transforms.keywords["crop_size"] == SPECS[name].input_size}
        assert counted == {SPECS[name].parameters}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_not_counted(name):
    with torch.device("meta"):
        model = build(name, SPECS[name].classes, load(SPECS[name].options, name)())
    assert sum(p.numel() for p in model.parameters()) == SPECS[name].parameters


@pytest.mark.parametrize("name", MODELS)
def test_stages(name):
    spec = SPECS[name]
    model = on_meta(spec)
    names = [*spec.stages, *(["pooled"] if spec.classifier else [])]
    shapes = Tapped(model, spec, names).probe((3, spec.input_size, spec.input_size))
    assert shapes["logits"] == (7,)
    patch = int(name.rpartition("_")[2]) if name.startswith("vit_") else 0
    for number, stage in enumerate(stage_names(spec)):
        _, height, width = shapes[stage]
        assert height == width
        # Unpadded convolutions lose some rows (AlexNet, Inception), sizes that are no multiple of 32 round up.
        assert abs(math.log2(spec.input_size / height / (patch or 4 << number))) < 0.25, stage
    if name in CHANNELS:
        assert tuple(shapes[stage][0] for stage in stage_names(spec)) == CHANNELS[name]
    assert len(stage_names(spec)) == (3 if name.startswith("squeezenet") else 4)
    if "stem" in spec.stages:
        assert shapes["stem"][1] >= shapes["stage1"][1]
    for stage in spec.stages:
        if stage.endswith(":pre"):
            assert shapes[stage] == shapes[stage.removesuffix(":pre")]


@pytest.mark.parametrize("name", MODELS)
def test_classifier(name):
    spec = SPECS[name]
    model = on_meta(spec)
    if spec.classifier:
        classifier = model.get_submodule(spec.classifier)
        assert isinstance(classifier, nn.Linear)
        assert classifier.out_features == 7
    else:
        assert name.startswith("squeezenet")
    assert spec.paper
    assert spec.qualified == f"torchvision/{name}"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_option_is_taken_by_torchvision(name):
    spec = SPECS[name]
    if not spec.options:
        with pytest.raises(TypeError, match="unexpected keyword argument 'dropout'"):
            torchvision.models.get_model(name, weights=None, dropout=0.1)
        return
    options = load(spec.options, name)
    given = {"dropout": 0.25, "stochastic_depth": 0.125, "transform_input": False, "image_size": 448}
    given = {key: value for key, value in given.items() if key in options.model_fields}
    with torch.device("meta"):
        model = build(name, 7, options(**given))
    if "dropout" in given:
        shares = {m.p for m in model.modules() if isinstance(m, nn.Dropout)} | {getattr(m, "drop_rate", None) for m in model.modules()}
        shares |= {m.dropout for m in model.modules() if isinstance(getattr(m, "dropout", None), float)}
        assert 0.25 in shares
    if "stochastic_depth" in given:
        # EfficientNet's ramp ends one block short of the value.
        assert 0.1 < max(m.p for m in model.modules() if type(m).__name__ == "StochasticDepth") <= 0.125
    if "transform_input" in given:
        assert model.transform_input is False
    if "image_size" in given:
        stride = 32 if name == "maxvit_t" else int(name.rpartition("_")[2])
        assert Tapped(model, spec, ["stage4"]).probe((3, 448, 448))["stage4"][1] == 448 // stride


@pytest.mark.parametrize("name", SPECS)
def test_published_accuracy_is_told_of_all_weights(name):
    """As a share, from torchvision's own table; its best weights of each model are above half."""
    spec = SPECS[name]
    found = load(spec.weights_top1, name)(name)
    assert {weights: found[weights] for weights in spec.weights} == {
        member.name: pytest.approx(member.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        for member in torchvision.models.get_model_weights(name)
        if member.name in spec.weights
    }
    assert 0.5 < max(found[weights] for weights in spec.weights) < 0.9
