"""Which batch normalisation gives the margins, in every model of the zoo; and refusals."""

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

from distillctl import RunError
from distillctl.builtin import torchvision as torchvision_plugin
from distillctl.models.features import Tapped, batch_statistics
from distillctl.plugin.registry import load
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_cifar.zoo import SPECS
from distillctl_ofd.method import OFD, margins_of
from distillctl_ofd.modules import find_norm, norms_before
from distillctl_ofd.plugin import SPEC

CIFAR = {spec.name: spec for spec in SPECS}
TORCHVISION = {spec.name: spec for spec in torchvision_plugin.register_model()}


def tap(spec, names, size):
    """A model with new weights, and the model as a method sees it."""
    tapped = Tapped(load(spec.implementation, spec.name)(spec.name, 10, options_of(spec)), spec, names)
    return tapped, tapped.side(tapped.probe((3, size, size)), spec.name)


@functools.cache
def side(name, *names):
    """A model as a method sees it: of the CIFAR zoo, or `torchvision/NAME`. On the device `meta` nothing is computed."""
    zoo, size = (TORCHVISION, 64) if "/" in name else (CIFAR, 32)
    with torch.device("meta"):
        return tap(zoo[name.rpartition("/")[2]], names or ("stages:pre",), size)[1]


def paths_found(one, names):
    """Module paths of the batch normalisations."""
    where = {module: path for path, module in one.model.named_modules()}
    return [where[norm] for norm in norms_before(one, one.expand(names), [])]


def of_residual(blocks, norm):
    return [f"layer{number}.{count - 1}.{norm}" for number, count in enumerate(blocks, 1)]


_WRN = ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"]
CIFAR_NORMS = {
    **{f"resnet{depth}": of_residual([(depth - 2) // 6] * 3, "bn2") for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": of_residual([1, 1, 1], "bn2"),
    "resnet32x4": of_residual([5, 5, 5], "bn2"),
    **{f"wrn_{depth}_{factor}": _WRN for depth in (16, 40) for factor in (1, 2)},
    "vgg8": [f"block{k}.1" for k in (1, 2, 3, 4)],
    "vgg11": ["block1.1", "block2.4", "block3.4", "block4.4"],
    "vgg13": [f"block{k}.4" for k in (1, 2, 3, 4)],
    "vgg16": ["block1.4", "block2.7", "block3.7", "block4.7"],
    "vgg19": ["block1.4", "block2.10", "block3.10", "block4.10"],
    "MobileNetV2": ["blocks.1.1.conv.7", "blocks.2.2.conv.7", "blocks.4.2.conv.7", "blocks.6.0.conv.7"],
    "ShuffleV1": of_residual([4, 8, 4], "bn3"),
    "ResNet18": of_residual([2, 2, 2, 2], "bn2"),
    "ResNet34": of_residual([3, 4, 6, 3], "bn2"),
    "ResNet50": of_residual([3, 4, 6, 3], "bn3"),
    "ResNet101": of_residual([3, 4, 23, 3], "bn3"),
    "ResNet152": of_residual([3, 8, 36, 3], "bn3"),
}
"""The batch normalisations before each stage's ReLU, from METHODS §9.4. ShuffleV1 adds branch and shortcut like a ResNet."""


def test_every_model_of_the_zoo_is_looked_at():
    assert set(CIFAR_NORMS) | {"ShuffleV2"} == set(CIFAR)


@pytest.mark.slow
@pytest.mark.parametrize("name", CIFAR_NORMS)
def test_norms_of_the_cifar_zoo(name):
    assert paths_found(side(name), ["stages:pre"]) == CIFAR_NORMS[name]


def test_shuffled_halves_have_no_norm():
    """Half of ShuffleNetV2's channels come from the batch normalisation, half from the shortcut."""
    with pytest.raises(RunError) as caught:
        paths_found(side("ShuffleV2"), ["stages:pre"])
    (problem,) = caught.value.problems
    assert problem.message == "`ofd` finds no batch normalisation of 116 channels right before `stage1:pre` of the teacher `ShuffleV2`"
    assert "`margin_norms`" in problem.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", of_residual([2, 2, 2, 2], "bn2")),
        ("resnet34", of_residual([3, 4, 6, 3], "bn2")),
        ("resnet50", of_residual([3, 4, 6, 3], "bn3")),
        ("mobilenet_v2", ["features.3.conv.3", "features.6.conv.3", "features.13.conv.3", "features.18.1"]),
    ],
)
def test_norms_of_torchvision(name, expected):
    """Blocks of torchvision's ResNets call one ReLU several times, and BasicBlock registers it before its last batch normalisation."""
    assert paths_found(side(f"torchvision/{name}"), ["stages:pre"]) == expected


def test_norms_in_a_row_of_layers():
    """All of VGG lies in one Sequential, and the widths of its last two blocks agree."""
    names = ("stage1:pre", "stage2:pre", "stage3:pre", "features.27:input")
    assert paths_found(side("torchvision/vgg11_bn", *names), list(names)) == ["features.12", "features.19", "features.26", "features.26"]


@pytest.mark.parametrize(
    ("name", "path", "channels", "expected"),
    [
        ("resnet20", "layer2.2.relu1", 32, "layer2.2.bn1"),  # inside of a block
        ("resnet8", "layer2", 32, "layer2.0.bn2"),  # a whole stage, whose shortcut has one of the same width
        ("wrn_16_1", "block1", 16, None),  # a sum of convolutions
        ("wrn_16_1", "block1.layer.0.relu2", 16, "block1.layer.0.bn2"),
        ("wrn_16_1", "relu", 64, "bn1"),  # the network's end
        ("wrn_16_1", "conv1", 16, None),
        ("vgg11", "relu3", 512, "block3.4"),  # block4 has the same width
        ("vgg11", "relu4", 512, "block4.4"),
        ("vgg11", "block3.2", 512, "block3.1"),  # between two convolutions
        ("ResNet18", "layer3.0.shortcut", 256, "layer3.0.shortcut.1"),
        ("MobileNetV2", "conv2", 1280, "conv2.1"),
        ("resnet20", "layer2.2.relu1", 33, None),
    ],
)
def test_norms_at_module_paths(name, path, channels, expected):
    model = side(name).model
    assert find_norm(model, path, channels) is (None if expected is None else model.get_submodule(expected))


def test_input_of_a_norm_has_none():
    """What a batch normalisation receives is not what it gives; what an activation receives is."""
    names = ("block2.layer.0.bn1:input", "bn1")
    one = side("wrn_16_2", *names)
    assert paths_found(one, ["bn1"]) == ["bn1"]
    with pytest.raises(RunError, match=r"finds no .* of 32 channels right before `block2\.layer\.0\.bn1:input`"):
        paths_found(one, [names[0]])


@pytest.mark.parametrize("order", ["relu_first", "relu_last", "with_shortcut"])
def test_blocks_that_call_one_relu_twice(order):
    block = nn.Module()
    layers = {"conv1": nn.Conv2d(4, 4, 1), "bn1": nn.BatchNorm2d(4), "conv2": nn.Conv2d(4, 4, 1), "bn2": nn.BatchNorm2d(4)}
    relu = {"act": nn.ReLU()}
    shortcut = {"downsample": nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))}
    chosen = {"relu_first": relu | layers, "relu_last": layers | relu, "with_shortcut": layers | relu | shortcut}[order]
    for name, module in chosen.items():
        block.add_module(name, module)
    assert find_norm(nn.Sequential(block), "0.act", 4) is layers["bn2"]


@functools.cache
def resnet8():
    return tap(CIFAR["resnet8"], ("stages:pre",), 32)[1]


def chosen(*paths, stages=("stage1:pre", "stage2:pre")):
    """A method on two stages of a teacher with these `margin_norms`."""
    teacher = resnet8()
    shapes = {"stage1:pre": (8, 32, 32), "stage2:pre": (8, 16, 16)}
    setup = replace(make_setup(shapes, {}), teacher=teacher)
    return OFD(options_of(SPEC, student_stages=list(stages), teacher_stages=list(stages), margin_norms=list(paths)), setup)


def test_chosen_norms_are_taken():
    model = resnet8().model
    norms = [model.layer1[0].bn1, model.layer2[0].downsample[1]]
    for norm in norms:
        nn.init.uniform_(norm.bias, -1, 1)
    torch.testing.assert_close(chosen("layer1.0.bn1", "layer2.0.downsample.1").margins, torch.cat([margins_of(norm) for norm in norms]))


_ENTRY = "of the teacher `resnet8` in `margin_norms`"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["layer1.0.bn1"], "`margin_norms` has 1 paths, but `ofd` compares 2 stages of `resnet8`: `stage1:pre`, `stage2:pre`"),
        (
            ["layer1.0.bn1", "layer9.bn"],
            f"`layer9.bn` {_ENTRY} does not exist, but must be a batch normalisation of the 32 channels of `stage2:pre`",
        ),
        (
            ["layer1.0.bn1", "layer1.0.bn2"],
            f"`layer1.0.bn2` {_ENTRY} has 16 channels, but must be a batch normalisation of the 32 channels of `stage2:pre`",
        ),
        (
            ["layer1.0.conv1", "layer2.0.bn2"],
            f"`layer1.0.conv1` {_ENTRY} is a Conv2d, but must be a batch normalisation of the 16 channels of `stage1:pre`",
        ),
    ],
)
def test_wrong_choices_are_refused(paths, message):
    with pytest.raises(RunError) as caught:
        chosen(*paths)
    (problem,) = caught.value.problems
    assert problem.message == message
    assert "shallow to deep" in problem.hint


def test_teacher_without_batch_normalisation_is_refused():
    with pytest.raises(RunError, match=r"of 64 channels right before `features\.1:input` of the teacher `alexnet`"):
        norms_before(side("torchvision/alexnet", "features.1:input"), ["features.1:input"], [])


def test_norm_without_parameters():
    torch.testing.assert_close(margins_of(nn.BatchNorm2d(2, affine=False)), margins_of(nn.BatchNorm2d(2)))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("resnet8x4", "resnet20"), ("ShuffleV1", "resnet8x4"), ("MobileNetV2", "vgg8"), ("resnet8", "ResNet18"), ("wrn_16_1", "MobileNetV2")],
)
def test_d11_widths_are_measured(student, teacher):
    """The peers' hard-coded widths leave out ShuffleV1 and MobileNetV2 as students and ResNet18 as a teacher."""
    torch.manual_seed(0)
    (ours, student_side), (theirs, teacher_side) = (tap(CIFAR[name], ("stages:pre",), 32) for name in (student, teacher))
    buffers = {name: value.clone() for name, value in theirs.named_buffers()}
    setup = replace(make_setup({}, {}), student=student_side, teacher=teacher_side)
    method = OFD(options_of(SPEC), setup)
    paired = [names[-len(method.pairs) :] for names in (setup.student.stages, setup.teacher.stages)]
    assert [(s.removesuffix(":pre"), t.removesuffix(":pre")) for s, t in method.pairs] == list(zip(*paired, strict=True))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), batch_statistics(theirs.eval()):
        teacher_features = theirs(images)
    loss = method.terms(make_batch(setup, 2), ours(images), teacher_features, make_progress())[""]
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    # D-15: nothing of the teacher has moved.
    assert all(torch.equal(value, buffers[name]) for name, value in theirs.named_buffers())


def test_d15_teacher_norm_is_asked_of_the_engine():
    """Batch statistics by default, as the authors train; that the teacher's buffers stay is the engine's promise for either."""
    assert OFD.wants(options_of(SPEC)).teacher_norm == "batch"
    assert OFD.wants(options_of(SPEC, teacher_norm="running")).teacher_norm == "running"
