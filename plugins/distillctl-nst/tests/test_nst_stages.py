"""Which stages are compared, what is refused, dead channels, and what the spec says."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_nst.losses import nst_loss
from distillctl_nst.method import NST
from distillctl_nst.plugin import SPEC

RESNET = {"stem": (4, 16, 16), "stage1": (4, 8, 8), "stage2": (8, 4, 4), "stage3": (16, 2, 2)}
MOBILENET = {"stage1": (6, 8, 8), "stage2": (12, 4, 4), "stage3": (20, 2, 2)}


def test_d05_stages_are_paired_by_name_without_the_stem() -> None:
    """A teacher that lists its stem, and a student without one: a front-aligned `zip` shifts all pairs and drops the last stage."""
    setup = make_setup(MOBILENET, RESNET)
    method = NST(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    expected = sum(nst_loss(student[name], teacher[name]).item() for name in MOBILENET)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_d05_fewer_stages_are_paired_from_the_deepest() -> None:
    setup = make_setup({"stage1": (4, 4, 4), "stage2": (8, 2, 2)}, RESNET)
    method = NST(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage2"), ("stage2", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, nst_loss(student["stage1"], teacher["stage2"]) + nst_loss(student["stage2"], teacher["stage3"]))


def test_named_stages() -> None:
    options = options_of(SPEC, student_stages=["stage3"], teacher_stages=["stage2"])
    assert NST.wants(options).student == ("stage3",)
    assert NST.wants(options).teacher == ("stage2",)
    assert NST(options, make_setup(MOBILENET, RESNET)).pairs == (("stage3", "stage2"),)


def test_unequal_numbers_of_named_stages_are_refused() -> None:
    options = options_of(SPEC, student_stages=["stage2", "stage3"], teacher_stages=["stage3"])
    with pytest.raises(RunError, match="pairs 2 stages of `tiny_student`"):
        NST(options, make_setup(MOBILENET, RESNET))


def test_vector_is_refused() -> None:
    options = options_of(SPEC, student_stages=["stage3"], teacher_stages=["pooled"])
    with pytest.raises(RunError, match=r"`nst` needs a feature map .* `pooled` of `tiny_teacher` has shape \(16,\)"):
        NST(options, make_setup(MOBILENET, {"pooled": (16,)}))


def test_single_positions_are_refused_unless_another_pair_has_more() -> None:
    """A pattern of one position is 1 once it is normalised, whatever the student does."""
    student, teacher = {"stage1": (4, 1, 2), "stage2": (8, 1, 1)}, {"stage1": (4, 2, 1), "stage2": (8, 2, 2)}
    with pytest.raises(RunError, match=r"each pair of stages: `stage1` \(4, 1, 2\) with `stage1` \(4, 2, 1\), `stage2` \(8, 1, 1\) with"):
        NST(options_of(SPEC), make_setup(student, teacher))
    NST(options_of(SPEC), make_setup(student, {**teacher, "stage1": (4, 2, 2)}))


@pytest.mark.parametrize("values", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 0.0}, {"bandwidth": 0.5}, {"bandwidth": "median"}])
def test_wrong_options_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n(  Value error, `)?{[*values][-1]}\b"):
        options_of(SPEC, **values)


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({"kernel": "linear"}, {"kernel": "linear"}),
        ({"kernel": "rbf"}, {"kernel": "rbf"}),
        ({"kernel": "rbf", "bandwidth": 0.2}, {"kernel": "rbf", "bandwidth": 0.2}),
    ],
)
def test_options_reach_the_loss(values: dict[str, object], arguments: dict[str, object]) -> None:
    setup = make_setup(MOBILENET, RESNET)
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    options = options_of(SPEC, student_stages=["stage2"], teacher_stages=["stage2"], **values)
    value = NST(options, setup).terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, nst_loss(student["stage2"], teacher["stage2"], **arguments))


@pytest.mark.parametrize("kernel", ["poly", "linear", "rbf"])
@pytest.mark.parametrize("size", [(2, 2), (5, 4)], ids=str)
@pytest.mark.parametrize("level", [0.0, 1e-9])
def test_dead_channels_get_no_gradient_and_the_others_do(level: float, size: tuple[int, int], kernel: str) -> None:
    """Dividing a zero vector by a tiny eps would send it a gradient of 1e12, which half precision cannot hold."""
    student, teacher = torch.randn(3, 6, *size), torch.randn(3, 8, *size)
    student[:, ::2] *= level
    student.requires_grad_()
    nst_loss(student, teacher, kernel=kernel).backward()
    assert (student.grad[:, ::2] == 0).all()
    assert (student.grad[:, 1::2].abs().sum((2, 3)) > 0).all()
    assert student.grad.abs().max() < 10


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.kernel, options.bandwidth) == ("poly", "mean")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (50.0, 1.0, 0.0)
