"""Which stages are compared, what is refused, and what the spec says."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_at.losses import at_loss
from distillctl_at.method import AT
from distillctl_at.plugin import SPEC

RESNET = {"stem": (4, 16, 16), "stage1": (4, 8, 8), "stage2": (8, 4, 4), "stage3": (16, 2, 2)}
MOBILENET = {"stage1": (6, 8, 8), "stage2": (12, 4, 4), "stage3": (20, 2, 2)}


def test_d05_stages_are_paired_by_name_without_the_stem() -> None:
    """A teacher that lists its stem, and a student without one: a front-aligned `zip` shifts all pairs and drops the last stage."""
    setup = make_setup(MOBILENET, RESNET)
    method = AT(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    expected = sum(at_loss(student[name], teacher[name]).item() for name in MOBILENET)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_d05_fewer_stages_are_paired_from_the_deepest() -> None:
    setup = make_setup({"stage1": (4, 4, 4), "stage2": (8, 2, 2)}, RESNET)
    method = AT(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage2"), ("stage2", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, at_loss(student["stage1"], teacher["stage2"]) + at_loss(student["stage2"], teacher["stage3"]))


def test_named_stages() -> None:
    options = options_of(SPEC, student_stages=["stage3"], teacher_stages=["stage2"])
    assert AT.wants(options).student == ("stage3",)
    assert AT.wants(options).teacher == ("stage2",)
    assert AT(options, make_setup(MOBILENET, RESNET)).pairs == (("stage3", "stage2"),)


def test_unequal_numbers_of_named_stages_are_refused() -> None:
    options = options_of(SPEC, student_stages=["stage2", "stage3"], teacher_stages=["stage3"])
    with pytest.raises(RunError, match="pairs 2 stages of `tiny_student`"):
        AT(options, make_setup(MOBILENET, RESNET))


def test_vector_is_refused() -> None:
    options = options_of(SPEC, student_stages=["pooled"], teacher_stages=["stage3"])
    with pytest.raises(RunError, match=r"`at` needs a feature map .* `pooled` of `tiny_student` has shape \(20,\)"):
        AT(options, make_setup({"pooled": (20,)}, RESNET))


def test_single_positions_are_refused_unless_another_pair_has_more() -> None:
    """A map of one position is 1 once it is normalised, whatever the student does."""
    student, teacher = {"stage1": (4, 1, 2), "stage2": (8, 1, 1)}, {"stage1": (4, 2, 1), "stage2": (8, 2, 2)}
    with pytest.raises(RunError, match=r"only one is left in each pair of stages: `stage1` \(4, 1, 2\) with `stage1` \(4, 2, 1\)"):
        AT(options_of(SPEC), make_setup(student, teacher))
    AT(options_of(SPEC), make_setup(student, {**teacher, "stage1": (4, 2, 2)}))


@pytest.mark.parametrize("values", [{"power": 0.5}, {"mode": "norm"}, {"student_stages": []}, {"student_stages": ["stage1", "stage1"]}])
def test_wrong_options_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*values][-1]}\b"):
        options_of(SPEC, **values)


def test_options_reach_the_loss() -> None:
    setup = make_setup(MOBILENET, RESNET)
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    options = options_of(SPEC, power=3.0, mode="paper", student_stages=["stage2"], teacher_stages=["stage2"])
    value = AT(options, setup).terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, at_loss(student["stage2"], teacher["stage2"], power=3.0, mode="paper"))


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.power, options.mode) == (2.0, "code")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1000.0, 1.0, 0.0)
    preset = SPEC.presets[0]
    assert (preset.when, preset.values) == ({"mode": "paper"}, {"weight": 5.0})
