import pytest
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_setup, options_of
from distillctl_sp.method import SP
from distillctl_sp.plugin import SPEC


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages, options.row_norm) == (["last"], ["last"], "l2")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (3000.0, 1.0, 0.0)


def test_wanted_features_are_the_chosen_stages():
    wants = SP.wants(options_of(SPEC, student_stages=["stage3", "stage4"], teacher_stages=["layer3", "layer4"]))
    assert (wants.student, wants.teacher) == (("stage3", "stage4"), ("layer3", "layer4"))


def test_unequal_numbers_of_stages_are_refused():
    setup = make_setup({"stage1": (3, 4, 4), "stage2": (4, 2, 2)}, {"stage1": (5, 4, 4)})
    with pytest.raises(RunError, match=r"`sp` pairs 2 stages of `tiny_student` \(stage1, stage2\) with 1 of `tiny_teacher` \(stage1\)"):
        SP(options_of(SPEC, student_stages=["stage1", "stage2"], teacher_stages=["stage1"]), setup)


@pytest.mark.parametrize("options", [{"row_norm": "l3"}, {"student_stages": []}, {"teacher_stages": ["last", "last"]}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)
