from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distillctl import Batch, RunError, Setup
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_reviewkd.losses import hcl
from distillctl_reviewkd.method import ReviewKD
from distillctl_reviewkd.modules import Fusion
from distillctl_reviewkd.plugin import SPEC

STUDENT = {"stage1": (6, 8, 8), "stage2": (8, 4, 4), "stage3": (12, 2, 2), "pooled": (12,)}
TEACHER = {"stage1:pre": (9, 8, 8), "stage2:pre": (10, 4, 4), "stage3:pre": (16, 2, 2), "pooled": (16,)}
Shapes = dict[str, tuple[int, ...]]


def build(student: Shapes = STUDENT, teacher: Shapes = TEACHER, **options: object) -> tuple[ReviewKD, Setup]:
    setup = make_setup(student, teacher)
    torch.manual_seed(0)
    return ReviewKD(options_of(SPEC, **options), setup), setup


def features(shapes: Shapes, size: int = 3, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, *shape, generator=draw) for name, shape in shapes.items()}


def outputs(method: ReviewKD, student: dict[str, Tensor], teacher: dict[str, Tensor], batch: Batch) -> tuple[list[Tensor], Tensor]:
    """What the levels give, shallow to deep, and the loss."""
    seen: list[Tensor] = []
    handle = method.review.register_forward_hook(lambda _module, _args, out: seen.extend(out))
    loss = method.terms(batch, student, teacher, make_progress())[""]
    handle.remove()
    return seen, loss


# -- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [True, False])
def test_as_many_levels_as_the_teacher_has_each_of_its_shape(pooled: bool) -> None:
    teacher = {**TEACHER, "stage1:pre": (9, 10, 6), "stage2:pre": (10, 5, 3)}  # other sizes than the student's
    method, setup = build(teacher=teacher, pooled=pooled)
    maps, _ = outputs(method, features(STUDENT), features(teacher), make_batch(setup, 3))
    expected = [(3, *teacher[name]) for name in ("stage1:pre", "stage2:pre", "stage3:pre")] + [(3, 16, 1, 1)] * pooled
    assert [tuple(m.shape) for m in maps] == expected


def test_gradient_reaches_the_deepest_features_through_every_level() -> None:
    method, setup = build()
    for k in range(4):
        student = {name: value.requires_grad_() for name, value in features(STUDENT).items()}
        maps, _ = outputs(method, student, features(TEACHER), make_batch(setup, 3))
        hcl(maps[k], torch.zeros_like(maps[k])).backward()
        reached = [name for name, value in student.items() if value.grad is not None and value.grad.abs().sum() > 0]
        assert reached == list(STUDENT)[k:]


def test_loss_is_the_sum_over_the_levels_against_the_teacher() -> None:
    method, setup = build()
    teacher = features(TEACHER, seed=1)
    maps, loss = outputs(method, features(STUDENT), teacher, make_batch(setup, 3))
    targets = [value if value.ndim == 4 else value[:, :, None, None] for value in teacher.values()]
    torch.testing.assert_close(loss, sum(hcl(a, b) for a, b in zip(maps, targets, strict=True)))


def test_unequal_numbers_of_stages_are_paired_from_the_deepest() -> None:
    method, _ = build(student={"stage1": (8, 4, 4), "stage2": (12, 2, 2), "pooled": (12,)})
    assert method.pairs == (("stage1", "stage2:pre"), ("stage2", "stage3:pre"), ("pooled", "pooled"))


def test_single_stage_without_the_pooled_vector_has_nothing_to_fuse() -> None:
    method, setup = build(student_stages=["stage2"], teacher_stages=["stage1:pre"], pooled=False)
    (level,) = method.review.levels
    assert isinstance(level, Fusion)
    assert level.gates is None
    assert outputs(method, features(STUDENT), features(TEACHER), make_batch(setup, 3))[1].isfinite()


def test_pooled_features_of_any_shape_are_flattened() -> None:
    student = {**STUDENT, "pooled": (12, 1, 1)}
    method, setup = build(student=student)
    value, flat = features(student), features(STUDENT)
    first = outputs(method, value, features(TEACHER), make_batch(setup, 3))[1]
    assert torch.equal(first, outputs(method, flat, features(TEACHER), make_batch(setup, 3))[1])


def test_convolutions_start_as_kaiming_uniform_with_slope_one() -> None:
    torch.manual_seed(0)
    level = Fusion(24, 32, 40, fuse=True)
    for convolution, fan_in in ((level.reduce[0], 24), (level.expand[0], 9 * 32)):
        bound = (6 / ((1 + 1) * fan_in)) ** 0.5
        assert 0.97 * bound < convolution.weight.abs().max().item() <= bound  # type: ignore[operator, union-attr]


# -- bugs of the peers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "built"), [(7, 7), (256, 12), (512, 12)])
def test_d04_mid_channels_are_honoured(asked: int, built: int) -> None:
    """Not more than the deepest level has, and less if asked for."""
    method, _ = build(mid_channels=asked)
    for level in method.review.levels:
        assert isinstance(level, Fusion)
        assert level.reduce[0].out_channels == level.expand[0].in_channels == built
        assert level.gates is None or level.gates.in_channels == 2 * built


def test_d04_the_published_width_of_mobilenet_is_a_preset() -> None:
    (preset,) = [preset for preset in SPEC.presets if preset.student == "mobile*v1*"]
    assert preset.values["mid_channels"] == 256


def test_on_coco_levels_of_a_pyramid_are_reviewed_from_the_first_epoch() -> None:
    """A detector has no pooled vector of an image, and its teacher no pre-activations."""
    values = {key: value for preset in SPEC.presets if preset.dataset == "coco" for key, value in preset.values.items()}
    assert values == {"weight": 1.0, "teacher_stages": ["stages"], "pooled": False, "warmup_epochs": 0.0}


def test_d11_channels_are_those_that_a_forward_measured() -> None:
    """Whatever the models say of themselves, and however odd."""
    student, teacher = {**STUDENT, "stage2": (5, 4, 4)}, {**TEACHER, "stage1:pre": (3, 8, 8), "pooled": (21,)}
    method, _ = build(student=student, teacher=teacher)
    found = [(level.reduce[0].in_channels, level.expand[0].out_channels) for level in method.review.levels]  # type: ignore[index, union-attr]
    assert found == [(6, 3), (5, 10), (12, 16), (12, 21)]


@pytest.mark.parametrize("norm", ["running", "batch"])
def test_d14_normalisation_of_the_teacher_is_an_option(norm: str) -> None:
    assert ReviewKD.wants(options_of(SPEC)).teacher_norm == "running"
    assert ReviewKD.wants(options_of(SPEC, teacher_norm=norm)).teacher_norm == norm


# -- declarations -----------------------------------------------------------------------------------------------------


def test_wanted_features() -> None:
    wants = ReviewKD.wants(options_of(SPEC))
    assert (wants.student, wants.teacher) == (("stages", "pooled"), ("stages:pre", "pooled"))
    wants = ReviewKD.wants(options_of(SPEC, student_stages=["a", "b"], teacher_stages=["c", "d"], pooled=False))
    assert (wants.student, wants.teacher) == (("a", "b"), ("c", "d"))


def test_warmup_is_the_engines() -> None:
    """The spec states its length; the method's own value is the same in every epoch."""
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (5.0, 1.0, 20.0)
    method, setup = build()
    inputs = make_batch(setup, 3), features(STUDENT), features(TEACHER)
    first, last = (method.terms(*inputs, make_progress(epoch, 240))[""] for epoch in (1, 240))
    assert torch.equal(first, last)


def test_vectors_as_stages_are_refused() -> None:
    with pytest.raises(RunError, match=r"`reviewkd` needs a feature map \(C, H, W\), but `stage3` of `tiny_student` has shape \(12,\)"):
        build(student={**STUDENT, "stage3": (12,)})


def test_unequal_numbers_of_named_stages_are_refused() -> None:
    with pytest.raises(RunError, match=r"`reviewkd` pairs 2 stages of `tiny_student` \(stage1, stage2\) with 1 of `tiny_teacher`"):
        build(student_stages=["stage1", "stage2"], teacher_stages=["stage3:pre"])


@pytest.mark.parametrize(
    "options", [{"mid_channels": 0}, {"teacher_norm": "train"}, {"student_stages": []}, {"teacher_stages": ["a", "a"]}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


# -- one image, precision ---------------------------------------------------------------------------------------------


def test_one_image() -> None:
    """The deepest level is 1×1: a channel with one value has no variance, and plain batch normalisation raises there."""
    method, setup = build()
    student = {name: value.requires_grad_() for name, value in features(STUDENT, 1).items()}
    loss = method.terms(make_batch(setup, 1), student, features(TEACHER, 1), make_progress())[""]
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in student.values())


def test_fusion_runs_in_the_precision_of_the_run_and_the_loss_in_float32() -> None:
    method, setup = build()
    student, teacher = ({k: v.bfloat16() for k, v in features(shapes).items()} for shapes in (STUDENT, TEACHER))
    batch = make_batch(setup, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, first = outputs(method, student, teacher, batch)
    outside, second = outputs(method, student, teacher, batch)
    assert {m.dtype for m in inside} == {torch.bfloat16}
    assert {m.dtype for m in outside} == {torch.float32}
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
