"""`sdd`: whose classifier it uses, which models it can take, and its options."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import RunError, Wants
from distillctl.builtin.torchvision import register_model
from distillctl.models.features import Tapped
from distillctl.plugin.registry import load
from distillctl.profile.presets import Pair, preset_values
from distillctl.testing import TINY_CNN, TINY_VIT, TINY_WIDE, make_batch, make_features, make_progress, make_setup, options_of
from distillctl_cifar.zoo import SPECS
from distillctl_sdd.method import SDD
from distillctl_sdd.plugin import SPEC

MAP = {"final": (3, 4, 4), "pooled": (3,)}


def side_of(spec, stage="final", size=32):
    """A model with random weights as a run shows it to a method."""
    torch.manual_seed(0)
    model = load(spec.implementation, spec.name)(spec.name, 10, options_of(spec))
    tapped = Tapped(model, spec, [stage, "pooled"])
    return tapped.side(tapped.probe((3, size, size)), spec.name)


def setup_with(student=None, teacher=None):
    setup = make_setup(MAP, MAP)
    return replace(setup, student=student or setup.student, teacher=teacher or setup.teacher)


def test_gradients_reach_the_students_classifier_which_stays_the_students():
    setup = make_setup(MAP, MAP)
    method = SDD(options_of(SPEC), setup)
    assert not list(method.parameters())
    assert not method.state_dict()
    student = {name: value.requires_grad_() for name, value in make_features(setup.student, 7, 1).items()}
    terms = method.terms(make_batch(setup, 7), student, make_features(setup.teacher, 7, 2), make_progress())
    sum(terms.values()).backward()
    assert setup.student.classifier.weight.grad.abs().sum() > 0
    assert setup.student.classifier.bias.grad.abs().sum() > 0
    assert all(p.grad is None for p in setup.teacher.model.parameters())


def test_wants_the_map_and_what_the_classifier_receives():
    assert SDD.wants(options_of(SPEC)) == Wants(student=("final", "pooled"), teacher=("final", "pooled"))
    wants = SDD.wants(options_of(SPEC, student_stage="layer4", teacher_stage="stage3"))
    assert (wants.student, wants.teacher) == (("layer4", "pooled"), ("stage3", "pooled"))


FAMILIES = ("resnet8", "resnet8x4", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet18")


@pytest.mark.parametrize("name", FAMILIES)
def test_takes_the_models_of_the_benchmark(name):
    side = side_of(next(spec for spec in SPECS if spec.name == name))
    SDD(options_of(SPEC), setup_with(student=side, teacher=side))


@pytest.mark.parametrize("spec", [TINY_CNN, TINY_WIDE], ids=lambda spec: spec.name)
def test_takes_other_models_that_average_their_last_map(spec):
    SDD(options_of(SPEC), setup_with(student=side_of(spec, size=8)))


def test_a_class_token_is_refused():
    with pytest.raises(RunError) as error:
        SDD(options_of(SPEC), setup_with(teacher=side_of(TINY_VIT, size=8)))
    problem = error.value.problems[0]
    assert problem.message == (
        "`sdd` needs the map whose average the classifier receives, but the average of `final` (16, 4, 4) of `tiny_vit` is not its "
        "`pooled` (16,)"
    )
    assert "`teacher_stage`" in problem.hint
    assert "class token" in problem.hint


def test_another_map_is_refused():
    """Of a WRN the last stage is a sum that batch normalisation and ReLU still change; the map must be named rightly."""
    wrn = next(spec for spec in SPECS if spec.name == "wrn_16_1")
    with pytest.raises(RunError, match=r"`stage3` \(64, 8, 8\) of `wrn_16_1` is not its `pooled` \(64,\)") as error:
        SDD(options_of(SPEC, student_stage="stage3"), setup_with(student=side_of(wrn, "stage3")))
    assert "`student_stage`" in error.value.problems[0].hint
    SDD(options_of(SPEC, student_stage="relu"), setup_with(student=side_of(wrn, "relu")))


def test_a_map_of_another_width_is_refused():
    with pytest.raises(RunError, match=r"average of `stage1` \(8, 8, 8\) of `tiny_cnn`"):
        SDD(options_of(SPEC, student_stage="stage1"), setup_with(student=side_of(TINY_CNN, "stage1", size=8)))


@pytest.mark.parametrize(("factor", "taken"), [(1 + 1e-4, True), (1.01, False)])
def test_tolerance(factor, taken):
    setup = make_setup(MAP, MAP)
    sample = {**setup.student.sample, "pooled": factor * setup.student.sample["pooled"]}
    setup = replace(setup, student=replace(setup.student, sample=sample))
    if taken:
        SDD(options_of(SPEC), setup)
        return
    with pytest.raises(RunError, match="`tiny_student` is not its `pooled`"):
        SDD(options_of(SPEC), setup)


def test_a_vector_is_refused():
    with pytest.raises(RunError, match="`sdd` needs a feature map"):
        SDD(options_of(SPEC, student_stage="pooled"), setup_with())


@pytest.mark.parametrize(("classifier", "has"), [(None, "declares none"), (nn.Conv2d(3, 10, 1), "ends in Conv2d")])
def test_a_model_without_a_linear_layer_is_refused(classifier, has):
    setup = make_setup(MAP, MAP)
    with pytest.raises(RunError, match=f"regions of `final`, but `tiny_teacher` {has}"):
        SDD(options_of(SPEC), replace(setup, teacher=replace(setup.teacher, classifier=classifier)))


@pytest.mark.parametrize("base", ["dkd", "nkd"])
def test_one_class_is_refused_where_others_are_needed(base):
    setup = make_setup(MAP, MAP, num_classes=1, num_data=4)
    with pytest.raises(RunError, match=f"base `{base}` needs at least 2 classes, not 1"):
        SDD(options_of(SPEC, base=base), setup)


def test_torchvisions_resnet_is_taken():
    spec = next(spec for spec in register_model() if spec.name == "resnet18")
    SDD(options_of(SPEC), setup_with(student=side_of(spec, size=64)))


def test_defaults():
    options = options_of(SPEC)
    assert (options.base, options.scales, options.complementary_weight, options.temperature) == ("kd", [1, 2, 4], 2.0, 4.0)
    assert (options.alpha, options.beta, options.gamma) == (1.0, 8.0, 1.5)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (0.9, 0.1, 0.0)
    assert SPEC.aliases == ("ssd",)


@pytest.mark.parametrize(
    ("teacher", "student", "scales"),
    [
        ("resnet32x4", "resnet8x4", [1, 2]),
        ("wrn_40_2", "wrn_16_2", [1, 2]),
        ("vgg13", "vgg8", [1, 2]),
        ("ResNet50", "ResNet18", [1, 2]),
        ("resnet32x4", "ShuffleV1", None),
        ("ResNet50", "vgg8", None),
        ("vgg13", "MobileNetV2", None),
        ("ResNet50", "resnet8", None),
    ],
)
def test_grids_by_pair(teacher, student, scales):
    values = preset_values(SPEC, Pair(("cifar100",), (teacher,), (student,)), {}, None)
    assert values.get("scales", (None,))[0] == scales


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([2, 4], "scale 1"),
        ([1, 2, 2], "twice"),
        ([1, 2, 3], "2×2 cannot be averaged from one of 3×3"),
        ([], "at least 1"),
        ([0, 1], "greater"),
    ],
)
def test_wrong_scales(scales, message):
    with pytest.raises(ValidationError, match=message):
        options_of(SPEC, scales=scales)


@pytest.mark.parametrize(("base", "name"), [("kd", "alpha"), ("kd", "beta"), ("kd", "gamma"), ("dkd", "gamma"), ("nkd", "beta")])
def test_factors_of_another_base_are_refused(base, name):
    with pytest.raises(ValidationError, match=f"`{name}` belongs to the base"):
        options_of(SPEC, base=base, **{name: 3.0})


def test_a_weight_of_regions_is_refused_where_there_are_none():
    assert options_of(SPEC, scales=[1, 2], complementary_weight=3.0)
    with pytest.raises(ValidationError, match=r"`complementary_weight` has no effect with `scales = \[1\]`"):
        options_of(SPEC, scales=[1], complementary_weight=3.0)


@pytest.mark.parametrize("base", ["dkd", "nkd"])
def test_weights_of_another_base(base):
    (preset,) = [preset for preset in SPEC.presets if preset.when == {"base": base}]
    assert preset.values == {"weight": 1.0, "task_weight": 1.0, "warmup_epochs": 20.0}


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValidationError, match="`alpha` and `beta` both 0"):
        options_of(SPEC, base="dkd", alpha=0.0, beta=0.0)
