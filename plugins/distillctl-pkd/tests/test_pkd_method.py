"""Which stages `pkd` pairs, what it trains and refuses, what several processes compare, and in which precision it computes."""

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_pkd.losses import pkd_loss
from distillctl_pkd.method import PKD
from distillctl_pkd.plugin import SPEC

STUDENT = {"stage1": (4, 4, 4), "stage2": (6, 2, 2)}
TEACHER = {"stage1": (4, 4, 4), "stage2": (8, 2, 2)}


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages) == (["last"], ["last"])
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (10.0, 1.0, 0.0)
    assert (SPEC.compares_images, SPEC.presets) == (True, ())


def test_wanted_features_are_the_chosen_stages():
    wants = PKD.wants(options_of(SPEC, student_stages=["stage2", "stage3"], teacher_stages=["layer2", "layer3"]))
    assert (wants.student, wants.teacher) == (("stage2", "stage3"), ("layer2", "layer3"))


def test_a_convolution_without_bias_only_where_channels_differ():
    method = PKD(options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"]), make_setup(STUDENT, TEACHER))
    assert [type(connect) for connect in method.connectors] == [nn.Identity, nn.Conv2d]
    assert [(name, p.shape) for name, p in method.named_parameters()] == [("connectors.1.weight", (8, 6, 1, 1))]


def test_unequal_numbers_of_stages_are_refused():
    with pytest.raises(RunError, match=r"`pkd` pairs 2 stages of `tiny_student` \(stage1, stage2\) with 1 of `tiny_teacher` \(stage1\)"):
        PKD(options_of(SPEC, student_stages=["stage1", "stage2"], teacher_stages=["stage1"]), make_setup(STUDENT, TEACHER))


@pytest.mark.parametrize(("student", "teacher", "side"), [((4,), (4, 2, 2), "student"), ((4, 2, 2), (4,), "teacher")])
def test_feature_that_is_not_a_map_is_refused(student, teacher, side):
    with pytest.raises(RunError, match=rf"`pkd` needs a feature map \(C, H, W\), but `last` of `tiny_{side}`"):
        PKD(options_of(SPEC), make_setup({"last": student}, {"last": teacher}))


@pytest.mark.parametrize("options", [{"student_stages": []}, {"teacher_stages": ["last", "last"]}, {"weight": 1.0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_each_process_takes_the_statistics_of_its_own_images():
    """The method sees what it is handed: a share of the batch, or with `gather` all of it."""
    setup = make_setup({"last": (4, 2, 2)}, {"last": (4, 2, 2)})
    method, batch = PKD(options_of(SPEC), setup), make_batch(setup, 8)
    student, teacher = (torch.randn(8, 4, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    values = []
    for start, stop in ((0, 4), (4, 8), (0, 8)):
        share = dataclasses.replace(batch, images=batch.images[start:stop], labels=batch.labels[start:stop], start=start, total=8, whole=8)
        features = ({"last": side[start:stop]} for side in (student, teacher))
        values.append(method.terms(share, *features, make_progress())[""].item())
        assert values[-1] == pytest.approx(pkd_loss(student[start:stop], teacher[start:stop]).item(), rel=1e-6)
    assert (values[0] + values[1]) / 2 != pytest.approx(values[2], rel=1e-3)


def test_convolution_runs_in_the_precision_of_the_run_and_the_loss_in_float32():
    setup = make_setup({"last": (6, 4, 4)}, {"last": (8, 2, 2)})
    method, batch = PKD(options_of(SPEC), setup), make_batch(setup, 4)
    dtypes = []
    method.connectors[0].register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    student, teacher = torch.randn(4, 6, 4, 4).bfloat16(), torch.randn(4, 8, 2, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]
    outside = method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]
    assert dtypes == [torch.bfloat16, torch.float32]
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("size", [(8, 8), (16, 16)])
def test_statistics_and_resizing_are_those_of_float32(size):
    """The product of matrices that resizes is one that autocast would round."""
    setup = make_setup({"last": (2, 8, 8)}, {"last": (2, *size)})
    student = (torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()
    teacher = (torch.randn(8, 2, *size, generator=torch.Generator().manual_seed(1)) + 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (loss,) = PKD(options_of(SPEC), setup).terms(make_batch(setup, 8), {"last": student}, {"last": teacher}, make_progress()).values()
    assert loss.item() == pytest.approx(pkd_loss(student.double(), teacher.double()).item(), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    setup = make_setup({"last": (6, 2, 2)}, {"last": (8, 2, 2)})
    student, teacher = torch.randn(4, 6, 2, 2, requires_grad=True), torch.randn(4, 8, 2, 2, requires_grad=True)
    method = PKD(options_of(SPEC), setup)
    method.terms(make_batch(setup, 4), {"last": student}, {"last": teacher}, make_progress())[""].backward()
    assert teacher.grad is None
    assert (student.grad != 0).any()
    assert (method.connectors[0].weight.grad != 0).any()
