"""Which stages are compared, what is refused and how it is said, and what the spec says."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of
from distillctl_kdsvd.losses import kdsvd_loss
from distillctl_kdsvd.method import KDSVD
from distillctl_kdsvd.plugin import SPEC

RESNET = {"stem": (4, 16, 16), "stage1": (4, 8, 8), "stage2": (8, 4, 4), "stage3": (16, 2, 2)}
NARROW = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (12, 2, 2)}
SHORT = {"stage1": (8, 4, 4), "stage2": (16, 2, 2)}


def refusal(student: dict, teacher: dict, **options: object) -> RunError:
    with pytest.raises(RunError) as caught:
        KDSVD(options_of(SPEC, **options), make_setup(student, teacher))
    return caught.value


def test_d05_stages_are_paired_by_name_without_the_stem() -> None:
    """A teacher that lists its stem, and a student without one: a front-aligned `zip` shifts all pairs and drops the last stage."""
    student_shapes = {name: shape for name, shape in RESNET.items() if name != "stem"}
    setup = make_setup(student_shapes, RESNET)
    method = KDSVD(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, kdsvd_loss([student[n] for n in student_shapes], [teacher[n] for n in student_shapes]))


def test_d05_fewer_stages_are_paired_from_the_deepest() -> None:
    setup = make_setup(SHORT, RESNET)
    method = KDSVD(options_of(SPEC), setup)
    assert method.pairs == (("stage1", "stage2"), ("stage2", "stage3"))
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = method.terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    torch.testing.assert_close(value, kdsvd_loss([student["stage1"], student["stage2"]], [teacher["stage2"], teacher["stage3"]]))


def test_named_stages() -> None:
    options = options_of(SPEC, student_stages=["stage1", "stage3"], teacher_stages=["stage1", "stage3"])
    assert KDSVD.wants(options).student == KDSVD.wants(options).teacher == ("stage1", "stage3")
    assert KDSVD(options, make_setup(RESNET, RESNET)).pairs == (("stage1", "stage1"), ("stage3", "stage3"))


def test_d07_unequal_channels_are_refused_in_one_sentence() -> None:
    error = refusal(NARROW, RESNET)
    assert "`stage2` (6, 4, 4) of `tiny_student` with `stage2` (8, 4, 4) of `tiny_teacher`; `stage3` (12, 2, 2)" in str(error)
    assert "`stage1`" not in str(error)
    assert 'variant = "width"' in str(error)
    KDSVD(options_of(SPEC, variant="width"), make_setup(NARROW, RESNET))


def test_one_pair_of_stages_is_refused() -> None:
    for variant in ("channels", "width"):
        error = refusal(RESNET, RESNET, variant=variant, student_stages=["stage2"], teacher_stages=["stage2"])
        assert "only one: `stage2` of `tiny_student`, `stage2` of `tiny_teacher`" in str(error)
        assert "at least two stages" in str(error)


def test_vector_is_refused() -> None:
    error = refusal(
        {"stage1": (4, 8, 8), "pooled": (16,)}, RESNET, student_stages=["stage1", "pooled"], teacher_stages=["stage1", "stage3"]
    )
    assert "`kdsvd` needs a feature map (C, H, W), but `pooled` of `tiny_student` has shape (16,)" in str(error)


@pytest.mark.parametrize(
    ("variant", "matrix", "most"), [("channels", "(64, 4) of `stage1` and `stage1`", 4), ("width", "(32, 2) of `stage3` and `stage3`", 2)]
)
def test_more_vectors_than_a_matrix_has_are_refused(variant: str, matrix: str, most: int) -> None:
    error = refusal(RESNET, RESNET, variant=variant, vectors=most + 1)
    assert f"wants {most + 1} singular vectors, but the matrix {matrix} has only {most}" in str(error)
    KDSVD(options_of(SPEC, variant=variant, vectors=most), make_setup(RESNET, RESNET))


def test_vectors_of_one_entry_are_refused() -> None:
    flat = {"stage1": (4, 8, 1), "stage2": (8, 4, 1)}
    assert "vectors of one entry in every stage (`stage1`, `stage2`)" in str(refusal(flat, flat, variant="width"))
    KDSVD(options_of(SPEC), make_setup(flat, flat))


@pytest.mark.parametrize("values", [{"vectors": 0}, {"vectors": 1.5}, {"variant": "height"}])
def test_wrong_options_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*values][-1]}\b"):
        options_of(SPEC, **values)


def test_options_reach_the_loss() -> None:
    setup = make_setup(RESNET, RESNET)
    student, teacher = make_features(setup.student, 3, 0), make_features(setup.teacher, 3, 1)
    value = KDSVD(options_of(SPEC, variant="width", vectors=2), setup).terms(make_batch(setup, 3), student, teacher, make_progress())[""]
    names = ["stage1", "stage2", "stage3"]
    expected = kdsvd_loss([student[n] for n in names], [teacher[n] for n in names], variant="width", vectors=2)
    torch.testing.assert_close(value, expected)


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.variant, options.vectors) == ("channels", 1)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 0.0)
