"""The head: its layers, what of it is trained, and which teachers are refused."""

import copy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import RunError
from distillctl.testing import make_batch, make_features, make_progress, make_setup, make_side, options_of
from distillctl.testing.cases import with_head
from distillctl_simkd.method import SimKD
from distillctl_simkd.plugin import SPEC

ALLOWED = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear, nn.Identity, nn.Sequential)


def setup_of(student=(6, 3, 3), teacher=(8, 3, 3)):
    return make_setup({"final": student, "pooled": student[:1]}, {"final": teacher, "pooled": teacher[:1]})


def build(setup, **options):
    torch.manual_seed(0)
    method = SimKD(options_of(SPEC, **options), setup)
    method.enter(None)
    return method


@pytest.mark.parametrize(
    ("student", "teacher", "resize"),
    [((6, 3, 3), (8, 3, 3), None), ((6, 5, 3), (8, 4, 3), (4, 3)), ((6, 3, 3), (8, 6, 6), None), ((6, 4, 2), (8, 3, 5), (3, 2))],
)
def test_layers(student, teacher, resize):
    head = build(setup_of(student, teacher)).head()
    names = [name for name, _ in head.layers.named_children()]
    assert names == [*(["resize"] if resize else []), "projector", "pool", "flatten", "classifier"]
    assert head.feature == "final"
    assert all(type(layer) in ALLOWED for layer in head.layers.modules())
    if resize:
        assert head.layers.resize.output_size == resize


class Dropping(nn.Linear):
    """A classifier that drops a share of its inputs."""

    p = 0.2


def test_dropout_of_the_students_classifier_is_kept():
    setup = setup_of()
    setup = replace(setup, student=replace(setup.student, classifier=Dropping(6, 10)))
    layers = build(setup).head().layers
    assert [name for name, _ in layers.named_children()] == ["projector", "pool", "flatten", "dropout", "classifier"]
    assert isinstance(layers.dropout, nn.Dropout)
    assert layers.dropout.p == 0.2


@pytest.mark.parametrize(("reduction", "inner"), [(1, 8), (2, 4), (4, 2), (8, 1), (100, 1)])
def test_reduction_factor_gives_the_inner_channels(reduction, inner):
    layers = build(setup_of(), reduction=reduction).head().layers.projector
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.padding[0]) for c in convolutions] == [
        (6, inner, 1, 0),
        (inner, inner, 3, 1),
        (inner, 8, 1, 0),
    ]
    assert all(c.bias is None for c in convolutions)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3


def test_only_the_projector_is_trained_and_the_classifier_never_changes():
    setup = setup_of()
    method = build(setup)
    assert {name.split(".")[1] for name, p in method.named_parameters() if p.requires_grad} == {"projector"}
    own, teachers = method.layers.classifier, setup.teacher.classifier
    assert own is not teachers
    before, of_the_teacher = copy.deepcopy(own.state_dict()), copy.deepcopy(teachers.state_dict())
    optimizer = torch.optim.SGD(method.parameter_groups(), lr=0.1, weight_decay=0.1)
    batch, student, teacher = make_batch(setup, 4), make_features(setup.student, 4, 1), make_features(setup.teacher, 4, 2)
    losses = []
    for _ in range(30):
        loss = method.terms(batch, with_head(method, student), teacher, make_progress())[""]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for state in (own.state_dict(), teachers.state_dict()):
        assert all(torch.equal(state[name], before[name]) and torch.equal(state[name], of_the_teacher[name]) for name in before)
    assert all(p.grad is None for p in own.parameters())


def test_copy_has_no_hook_of_the_teachers():
    """A copied hook would write what the student's head receives among the teacher's features."""
    setup, seen = setup_of(), []
    setup.teacher.classifier.register_forward_pre_hook(lambda _module, args: seen.append(args))
    method = build(setup)
    with_head(method, make_features(setup.student, 2))
    assert not seen


def test_classifier_without_a_bias():
    setup = setup_of()
    linear = nn.Linear(8, 10, bias=False)
    method = build(replace(setup, teacher=replace(setup.teacher, classifier=linear)))
    assert method.layers.classifier.bias is None
    assert torch.equal(method.layers.classifier.weight, linear.weight)


def test_evaluation_takes_the_same_path():
    setup = setup_of()
    method, student = build(setup), make_features(setup.student, 4)
    with_head(method, student)  # moves the statistics
    method.eval()
    features = with_head(method, student)
    torch.testing.assert_close(method.head().layers(student["final"]), features["logits"], rtol=0, atol=0)
    expected = setup.teacher.classifier(features["head.projector"].mean((2, 3)))
    torch.testing.assert_close(features["logits"], expected)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_teacher_whose_classifier_receives_something_else_is_refused():
    """A WRN's last stage, for instance, which batch normalisation and ReLU still follow."""
    setup = setup_of()
    sample = {**setup.teacher.sample, "pooled": setup.teacher.sample["pooled"].relu()}
    message = r"that of `final` \(8, 3, 3\) of `tiny_teacher` is not `pooled` \(8,\)"
    with pytest.raises(RunError, match=message) as raised:
        build(replace(setup, teacher=replace(setup.teacher, sample=sample)))
    assert "`teacher_stage`" in raised.value.problems[0].hint


def test_teacher_with_hidden_layers_behind_the_map_is_refused():
    setup = setup_of()
    teacher = make_side("tiny_vgg", {"final": (8, 3, 3), "pooled": (20,)})
    teacher = replace(teacher, sample={**teacher.sample, "pooled": torch.ones(2, 20)})
    with pytest.raises(RunError, match=r"of `final` \(8, 3, 3\) of `tiny_vgg` is not `pooled` \(20,\)"):
        build(replace(setup, teacher=teacher))


@pytest.mark.parametrize("error", [1e-5, 1e-2])
def test_average_may_differ_by_rounding_alone(error):
    setup = setup_of()
    sample = {**setup.teacher.sample, "pooled": setup.teacher.sample["pooled"] + error * setup.teacher.sample["pooled"].abs().max()}
    setup = replace(setup, teacher=replace(setup.teacher, sample=sample))
    if error < 1e-3:
        build(setup)
        return
    with pytest.raises(RunError, match="whose average the classifier receives"):
        build(setup)


@pytest.mark.parametrize(("classifier", "what"), [(None, "is not declared"), (nn.Conv2d(8, 10, 1), "is Conv2d")])
def test_teacher_without_a_linear_classifier_is_refused(classifier, what):
    setup = setup_of()
    with pytest.raises(RunError, match=f"must be a Linear layer, but that of `tiny_teacher` {what}"):
        build(replace(setup, teacher=replace(setup.teacher, classifier=classifier)))


def test_student_without_a_classifier_is_refused():
    setup = setup_of()
    with pytest.raises(RunError, match="in place of the student's, but `tiny_student` declares none"):
        build(replace(setup, student=replace(setup.student, classifier=None)))


@pytest.mark.parametrize(("student", "teacher", "model"), [((6,), (8, 3, 3), "tiny_student"), ((6, 3, 3), (8,), "tiny_teacher")])
def test_feature_that_is_no_map_is_refused(student, teacher, model):
    with pytest.raises(RunError, match=rf"`simkd` needs a feature map \(C, H, W\), but `final` of `{model}` has shape"):
        build(setup_of(student, teacher))


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"student_stage": "stages"}, {"teacher_stage": ""}, {"reduction": 0}, {"reduction": 2.5}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stage, options.teacher_stage, options.reduction) == ("final", "final", 2)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 0.0, 0.0)
    wants = SimKD.wants(options_of(SPEC, student_stage="stage3", teacher_stage="layer4"))
    assert (wants.student, wants.teacher) == (("stage3", "head.projector"), ("layer4", "pooled"))
