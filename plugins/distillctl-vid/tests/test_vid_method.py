"""What `vid` trains, which stages it pairs, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError, Setup
from distillctl.models.features import Tapped
from distillctl.testing import TINY_CNN, TINY_WIDE, make_batch, make_progress, make_setup, options_of
from distillctl.testing.tiny_models import build_tiny
from distillctl_vid.losses import variance_of
from distillctl_vid.method import VID
from distillctl_vid.plugin import SPEC

STUDENT = {"stage1": (2, 4, 4), "stage2": (3, 2, 2)}
TEACHER = {"stage1": (3, 4, 4), "stage2": (5, 2, 2)}


def build(student: dict = STUDENT, teacher: dict = TEACHER, **options: object) -> VID:
    torch.manual_seed(0)
    return VID(options_of(SPEC, **options), make_setup(student, teacher))


def loss_of(method: VID, spread: float = 1.0) -> torch.Tensor:
    """`spread`: standard deviation of the teacher's second channel; that of all others is 1."""
    draw = torch.Generator().manual_seed(0)
    student = {name: torch.randn(16, *shape, generator=draw) for name, shape in STUDENT.items()}
    teacher = {name: torch.randn(16, *shape, generator=draw) for name, shape in TEACHER.items()}
    for value in teacher.values():
        value[:, 1] *= spread
    return method(make_batch(make_setup({}, {}), 16), student, teacher, make_progress())


def test_d03_variance_is_trained_saved_and_moved() -> None:
    """In a plain list it would be none of these, and the loss 0.1·MSE and a constant for ever."""
    method = build()
    rhos = {name: p for name, p in method.named_parameters() if p.ndim == 1}
    assert [tuple(p.shape) for p in rhos.values()] == [(3,), (5,)]  # one for each channel of the teacher
    loss_of(method).backward()
    assert all((p.grad != 0).all() for p in rhos.values())
    grouped = {id(p): group for group in method.parameter_groups() for p in group["params"]}
    assert all(grouped[id(p)]["weight_decay"] == 0 for p in rhos.values())
    assert rhos.keys() <= method.state_dict().keys()
    assert all(p.dtype == torch.float64 for name, p in copy.deepcopy(method).double().named_parameters() if name in rhos)


def test_d03_variance_follows_the_error_of_its_channel() -> None:
    method = build()
    optimizer = torch.optim.Adam(list(method.rhos), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss_of(method, spread=3.0).backward()
        optimizer.step()
    for rho in method.rhos:
        variance = variance_of(rho.detach(), 1e-5)
        assert variance[1].item() == pytest.approx(9, rel=0.4)
        assert variance[[0, *range(2, len(rho))]].tolist() == pytest.approx([1.0] * (len(rho) - 1), rel=0.5)


def test_regressors_are_decayed_as_the_optimizer_says() -> None:
    method = build()
    regressors, rhos = method.parameter_groups()
    assert set(regressors) == {"params"}
    assert len(regressors["params"]) == 6
    assert len(rhos["params"]) == 2


@pytest.mark.parametrize("variance", [5.0, 0.25])
def test_variances_start_at_the_option_and_are_reported(variance: float) -> None:
    method = build(init_variance=variance)
    for rho in method.rhos:
        torch.testing.assert_close(variance_of(rho.detach(), 1e-5), torch.full_like(rho, variance))
    assert method.metrics()["variance"].item() == pytest.approx(variance, rel=1e-5)


def test_reported_variance_is_the_geometric_mean() -> None:
    method = build(eps=1e-9)
    for rho in method.rhos:
        rho.data = torch.expm1(torch.full_like(rho, 4.0)).log()
    method.rhos[0].data = torch.expm1(torch.full((3,), 0.25)).log()
    assert method.metrics()["variance"].item() == pytest.approx((0.25**3 * 4**5) ** (1 / 8), rel=1e-5)


def test_d05_the_deepest_stages_belong_together() -> None:
    method = build({"stage1": (2, 4, 4), "stage2": (3, 2, 2)}, {"stage1": (3, 8, 8), "stage2": (4, 4, 4), "stage3": (5, 2, 2)})
    assert method.pairs == (("stage1", "stage2"), ("stage2", "stage3"))


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(RunError, match=r"`vid` pairs 1 stages of `tiny_student` \(stage2\) with 2 of `tiny_teacher` \(stage1, stage2\)"):
        build(student_stages=["stage2"], teacher_stages=["stage1", "stage2"])


@pytest.mark.parametrize(("student", "teacher", "side"), [((4, 3, 3), (8,), "teacher"), ((4,), (8, 3, 3), "student")])
def test_feature_that_is_no_map_is_refused(student: tuple[int, ...], teacher: tuple[int, ...], side: str) -> None:
    with pytest.raises(RunError, match=rf"`vid` needs a feature map \(C, H, W\), but `stage1` of `tiny_{side}`"):
        build({"stage1": student}, {"stage1": teacher})


@pytest.mark.parametrize("eps", [5.0, 6.0])
def test_start_below_the_lower_bound_is_refused(eps: float) -> None:
    with pytest.raises(RunError, match=f"`vid` cannot start at `init_variance` = 5, since no variance is below `eps` = {eps:g}"):
        build(eps=eps)


@pytest.mark.parametrize(
    "options", [{"student_stages": []}, {"teacher_stages": ["stage1", "stage1"]}, {"init_variance": 0.0}, {"eps": 0.0}, {"eps": -1.0}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_d13_building_changes_no_buffer_of_either_model() -> None:
    """A probe in training mode would move the running statistics of student and teacher."""
    images = torch.randn(4, 3, 8, 8)
    models = [build_tiny(spec.name, 10).train() for spec in (TINY_CNN, TINY_WIDE)]
    before = [{name: value.clone() for name, value in model.named_buffers()} for model in models]
    assert all(before)
    sides = []
    for model, spec in zip(models, (TINY_CNN, TINY_WIDE), strict=True):
        tapped = Tapped(model, spec, ("stages",))
        sides.append(tapped.side(tapped.probe((3, 8, 8)), spec.name))
    method = VID(options_of(SPEC), Setup(*sides, 10, torch.arange(10)))
    assert len(method.pairs) == 3
    for model, buffers in zip(models, before, strict=True):
        assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
        assert all(module.training for module in model.modules())
        model(images)
        assert not all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages, options.init_variance, options.eps) == (["stages"], ["stages"], 5.0, 1e-5)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 0.0)


def test_regressors_run_in_the_precision_of_the_run_and_the_loss_in_float32() -> None:
    method = build()
    dtypes: list[torch.dtype] = []
    method.regressors[0].register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    draw = torch.Generator().manual_seed(0)
    student, teacher = (
        {name: torch.randn(4, *shape, generator=draw).bfloat16() for name, shape in shapes.items()} for shapes in (STUDENT, TEACHER)
    )
    batch = make_batch(make_setup({}, {}), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, student, teacher, make_progress())[""]
    outside = method.terms(batch, student, teacher, make_progress())[""]
    assert dtypes == [torch.bfloat16, torch.float32]
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)
