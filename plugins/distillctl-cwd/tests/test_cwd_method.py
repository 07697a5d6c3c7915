"""Which stages `cwd` pairs, what it trains and refuses, and in which precision it computes."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_cwd.losses import cwd_loss
from distillctl_cwd.method import CWD
from distillctl_cwd.plugin import SPEC

STUDENT = {"stage1": (4, 4, 4), "stage2": (6, 2, 2)}
TEACHER = {"stage1": (4, 4, 4), "stage2": (8, 2, 2)}


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages, options.temperature) == (["last"], ["last"], 1.0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (10.0, 1.0, 0.0)
    assert (SPEC.compares_images, SPEC.presets) == (False, ())


def test_wanted_features_are_the_chosen_stages():
    wants = CWD.wants(options_of(SPEC, student_stages=["stage2", "stage3"], teacher_stages=["layer2", "layer3"]))
    assert (wants.student, wants.teacher) == (("stage2", "stage3"), ("layer2", "layer3"))


def test_a_convolution_without_bias_only_where_channels_differ():
    method = CWD(options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"]), make_setup(STUDENT, TEACHER))
    assert [type(connect) for connect in method.connectors] == [nn.Identity, nn.Conv2d]
    assert [(name, p.shape) for name, p in method.named_parameters()] == [("connectors.1.weight", (8, 6, 1, 1))]


def test_unequal_numbers_of_stages_are_refused():
    with pytest.raises(RunError, match=r"`cwd` pairs 2 stages of `tiny_student` \(stage1, stage2\) with 1 of `tiny_teacher` \(stage1\)"):
        CWD(options_of(SPEC, student_stages=["stage1", "stage2"], teacher_stages=["stage1"]), make_setup(STUDENT, TEACHER))


@pytest.mark.parametrize(("student", "teacher", "side"), [((4,), (4, 2, 2), "student"), ((4, 2, 2), (4,), "teacher")])
def test_feature_that_is_not_a_map_is_refused(student, teacher, side):
    with pytest.raises(RunError, match=rf"`cwd` needs a feature map \(C, H, W\), but `last` of `tiny_{side}`"):
        CWD(options_of(SPEC), make_setup({"last": student}, {"last": teacher}))


def test_single_positions_are_refused_unless_another_pair_has_more():
    one = make_setup({"stage1": (4, 1, 1), "stage2": (6, 1, 2)}, {"stage1": (4, 4, 4), "stage2": (8, 2, 1)})
    options = options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"])
    with pytest.raises(RunError, match="`cwd` compares positions, but only one is left in each pair of stages"):
        CWD(options, one)
    CWD(options, make_setup({"stage1": (4, 4, 4), "stage2": (6, 1, 1)}, TEACHER))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1e5}, {"student_stages": []}, {"teacher_stages": ["a", "a"]}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_convolution_runs_in_the_precision_of_the_run_and_the_softmax_in_float32():
    setup = make_setup({"last": (6, 2, 2)}, {"last": (8, 2, 2)})
    method, batch = CWD(options_of(SPEC), setup), make_batch(setup, 4)
    dtypes = []
    method.connectors[0].register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    student, teacher = torch.randn(4, 6, 2, 2).bfloat16(), torch.randn(4, 8, 2, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]
    outside = method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]
    assert dtypes == [torch.bfloat16, torch.float32]
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)


def test_shares_of_a_large_map_are_those_of_float32():
    """A softmax over 10⁴ positions in bfloat16 has no more than three digits, and their sum is off."""
    setup = make_setup({"last": (2, 96, 96)}, {"last": (2, 96, 96)})
    student, teacher = (torch.randn(2, 2, 96, 96, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (loss,) = CWD(options_of(SPEC), setup).terms(make_batch(setup, 2), {"last": student}, {"last": teacher}, make_progress()).values()
    assert loss.item() == pytest.approx(cwd_loss(student.double(), teacher.double(), 1.0).item(), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    setup = make_setup({"last": (6, 2, 2)}, {"last": (8, 2, 2)})
    student, teacher = torch.randn(4, 6, 2, 2, requires_grad=True), torch.randn(4, 8, 2, 2, requires_grad=True)
    method = CWD(options_of(SPEC), setup)
    method.terms(make_batch(setup, 4), {"last": student}, {"last": teacher}, make_progress())[""].backward()
    assert teacher.grad is None
    assert (student.grad != 0).any()
    assert (method.connectors[0].weight.grad != 0).any()
