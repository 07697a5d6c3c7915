"""Phase, stages, refusals and options of `fsp`."""

import pytest
import torch
from pydantic import ValidationError

from distillctl import Phase, RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_cifar.zoo import SPECS
from distillctl_fsp.losses import fsp_loss
from distillctl_fsp.method import FSP
from distillctl_fsp.plugin import SPEC

NARROW = {"stem": (4, 8, 8), "stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (8, 2, 2)}
OTHER = {"stem": (4, 16, 16), "stage1": (4, 8, 8), "stage2": (6, 8, 8), "stage3": (8, 4, 4)}


def build(student=NARROW, teacher=OTHER, **options):
    return FSP(options_of(SPEC, **options), make_setup(student, teacher))


def test_d10_the_term_belongs_to_the_phase_alone_and_its_weight_acts_there():
    """In RepDistiller `-b 50` stands before a loss that is no longer evaluated."""
    method = build(init_epochs=4)
    assert tuple(method.phases()) == (Phase(name="init", epochs=4, lr=None, student=True, modules=(), weighted=True),)
    assert not method.in_main
    assert SPEC.weight == 1.0
    assert build().phases()[0].epochs == 30


def test_learning_rate_of_the_phase():
    assert build(init_lr=0.02).phases()[0].lr == 0.02
    with pytest.raises(ValidationError, match="`init_lr` has no effect"):
        options_of(SPEC, init_epochs=0, init_lr=0.02)


def test_joint_has_no_phase_and_a_term_in_the_main_part():
    method = build(init_epochs=0)
    assert tuple(method.phases()) == ()
    assert method.in_main


@pytest.mark.parametrize("init_epochs", [30, 0])
def test_default_stages_are_the_stem_and_all_stages(init_epochs):
    method = build(init_epochs=init_epochs)
    setup = make_setup(NARROW, OTHER)
    draw = torch.Generator().manual_seed(0)
    student, teacher = ({name: torch.randn(2, *shape, generator=draw) for name, shape in shapes.items()} for shapes in (NARROW, OTHER))
    value = method.terms(make_batch(setup, 2), student, teacher, make_progress(), phase="init" if init_epochs else "")[""]
    names = ["stem", "stage1", "stage2", "stage3"]
    expected = fsp_loss([student[name] for name in names], [teacher[name] for name in names])
    assert torch.equal(value, expected)
    wants = FSP.wants(options_of(SPEC))
    assert wants.student == wants.teacher == ("stem", "stages")


def test_chosen_stages_and_pooling():
    chosen = {"student_stages": ["stage1", "stage3"], "teacher_stages": ["stem", "stage3"], "pool": "max"}
    method = build(init_epochs=0, **chosen)
    draw = torch.Generator().manual_seed(0)
    student, teacher = ({name: torch.randn(2, *shape, generator=draw) for name, shape in shapes.items()} for shapes in (NARROW, OTHER))
    value = method.terms(make_batch(make_setup(NARROW, OTHER), 2), student, teacher, make_progress())[""]
    assert torch.equal(value, fsp_loss([student["stage1"], student["stage3"]], [teacher["stem"], teacher["stage3"]], "max"))


def test_unequal_channels_are_refused_with_both_shapes():
    wider = {**OTHER, "stage2": (12, 8, 8), "stage3": (24, 4, 4)}
    message = r"`stage2` of `tiny_student` has shape \(6, 4, 4\) and `stage2` of `tiny_teacher` \(12, 8, 8\)"
    with pytest.raises(RunError, match=message) as raised:
        build(teacher=wider)
    assert "`student_stages`" in raised.value.problems[0].hint
    build(teacher=wider, student_stages=["stem", "stage1"], teacher_stages=["stem", "stage1"])


def test_one_stage_is_refused():
    with pytest.raises(RunError, match="`stage1` of `tiny_student` and `stage1` of `tiny_teacher` have no neighbour"):
        build(student_stages=["stage1"], teacher_stages=["stage1"])


def test_other_numbers_of_stages_are_refused():
    with pytest.raises(RunError, match="`fsp` pairs 2 stages"):
        build(student_stages=["stage1", "stage2"], teacher_stages=["stage1", "stage2", "stage3"])


def test_vector_is_refused():
    with pytest.raises(RunError, match=r"`fsp` needs a feature map \(C, H, W\), but `stage3` of `tiny_student` has shape \(8,\)"):
        build(student={**NARROW, "stage3": (8,)})


@pytest.mark.parametrize(
    "options",
    [
        {"student_stages": []},
        {"teacher_stages": ["stem", "stem"]},
        {"pool": "sum"},
        {"init_epochs": -1},
        {"init_epochs": 1.5},
        {"init_lr": 0.0},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_networks_of_the_benchmark_declare_the_default_stages():
    """The networks of the benchmark's pairs declare a stem, so that the default stages exist in them."""
    declared = {spec.name: spec.stages for spec in SPECS}
    for name in ("resnet20", "resnet110", "wrn_40_2", "wrn_16_2", "vgg13", "vgg8", "resnet32x4"):
        assert "stem" in declared[name]
