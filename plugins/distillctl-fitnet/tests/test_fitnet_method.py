"""What is chosen when `fitnet` is built, what it refuses, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from distillctl import RunError, Setup
from distillctl.models.features import Tapped
from distillctl.testing import TINY_CNN, TINY_WIDE, make_batch, make_progress, make_setup, options_of
from distillctl.testing.tiny_models import build_tiny
from distillctl_fitnet.method import FitNet
from distillctl_fitnet.plugin import SPEC


def build(student: tuple[int, ...], teacher: tuple[int, ...], smallest: float = 0.0, **options: object) -> FitNet:
    """`smallest`: the smallest value of the teacher's map for the images of noise."""
    setup = make_setup({"stage2": student}, {"stage2": teacher})
    sample = torch.rand(2, *teacher) + 1
    sample[1].flatten()[-1] = smallest
    return FitNet(options_of(SPEC, **options), replace(setup, teacher=replace(setup.teacher, sample={"stage2": sample})))


def ends_in_relu(method: FitNet) -> bool:
    return method.regressor(torch.randn(9, 4, 3, 3)).min().item() >= 0


@pytest.mark.parametrize(("smallest", "relu"), [(0.0, True), (0.1, True), (-1e-3, False)])
def test_auto_takes_relu_only_where_the_hint_is_never_negative(smallest: float, relu: bool) -> None:
    assert ends_in_relu(build((4, 3, 3), (6, 3, 3), smallest)) == relu


@pytest.mark.parametrize("smallest", [0.0, -1.0])
def test_stated_activation_holds_whatever_the_hint_is(smallest: float) -> None:
    assert ends_in_relu(build((4, 3, 3), (6, 3, 3), smallest, activation="relu"))
    assert not ends_in_relu(build((4, 3, 3), (6, 3, 3), smallest, activation="none"))


def test_relu_cannot_reach_a_negative_hint_and_auto_can() -> None:
    losses = {}
    for activation in ("relu", "auto"):
        torch.manual_seed(0)
        method = build((4, 3, 3), (6, 3, 3), -1.0, activation=activation)
        student = torch.randn(4, 4, 3, 3)
        hint = -torch.nn.functional.conv2d(student, torch.randn(6, 4, 1, 1)).abs()
        optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
        for _ in range(60):
            loss = method(make_batch(make_setup({}, {}), 4), {"stage2": student}, {"stage2": hint}, make_progress())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[activation] = loss.item()
    assert losses["relu"] == pytest.approx(hint.square().mean().item(), rel=1e-2)  # zeros are the best it can do
    assert losses["auto"] < losses["relu"] / 2


def test_one_image_with_a_map_of_one_pixel() -> None:
    """A batch of one value per channel has no variance: torch's own layer refuses it."""
    method = build((4, 1, 1), (6, 1, 1), activation="none")
    norm = method.regressor.norm
    student, teacher = torch.randn(1, 4, 1, 1, requires_grad=True), torch.randn(1, 6, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(6)(teacher)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    loss = method(make_batch(make_setup({}, {}), 1), {"stage2": student}, {"stage2": teacher}, make_progress())
    loss.backward()
    expected = (method.regressor.conv(student) / (1 + 1e-5) ** 0.5 - teacher).square().mean()  # statistics of the start: mean 0, variance 1
    torch.testing.assert_close(loss, expected)
    assert student.grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())


def test_two_images_with_maps_of_one_pixel_use_the_statistics_of_the_batch() -> None:
    method = build((4, 1, 1), (6, 1, 1), activation="none")
    regressed = method.regressor(torch.randn(2, 4, 1, 1))
    torch.testing.assert_close(regressed.mean(0), torch.zeros(6, 1, 1), rtol=0, atol=1e-5)
    assert method.regressor.norm.num_batches_tracked.item() == 1


def test_d13_building_changes_no_buffer_of_either_model() -> None:
    """A probe in training mode would move the running statistics of student and teacher."""
    images = torch.randn(4, 3, 8, 8)
    models = [build_tiny(spec.name, 10).train() for spec in (TINY_CNN, TINY_WIDE)]
    before = [{name: value.clone() for name, value in model.named_buffers()} for model in models]
    assert all(before)
    sides = []
    for model, spec in zip(models, (TINY_CNN, TINY_WIDE), strict=True):
        tapped = Tapped(model, spec, ("stage2",))
        sides.append(tapped.side(tapped.probe((3, 8, 8)), spec.name))
    method = FitNet(options_of(SPEC), Setup(*sides, 10, torch.arange(10)))
    assert isinstance(method.regressor.conv, nn.ConvTranspose2d)
    assert isinstance(method.regressor.activation, nn.ReLU)
    for model, buffers in zip(models, before, strict=True):
        assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
        assert all(module.training for module in model.modules())
        model(images)
        assert not all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize(("student", "teacher", "side"), [((4, 3, 3), (8,), "teacher"), ((4,), (8, 3, 3), "student")])
def test_feature_that_is_no_map_is_refused(student: tuple[int, ...], teacher: tuple[int, ...], side: str) -> None:
    shape = {"student": r"\(4,\)", "teacher": r"\(8,\)"}[side]
    with pytest.raises(RunError, match=rf"`fitnet` needs a feature map \(C, H, W\), but `stage2` of `tiny_{side}` has shape {shape}"):
        build(student, teacher)


@pytest.mark.parametrize("options", [{"student_stage": "stages"}, {"teacher_stage": ""}, {"activation": "gelu"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.student_stage, options.teacher_stage, options.activation) == ("stage2", "stage2", "auto")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (100.0, 1.0, 0.0)
    wants = FitNet.wants(options_of(SPEC, student_stage="last", teacher_stage="layer2.0"))
    assert (wants.student, wants.teacher) == (("last",), ("layer2.0",))


def test_regressor_runs_in_the_precision_of_the_run_and_the_loss_in_float32() -> None:
    method = build((4, 3, 3), (6, 3, 3))
    dtypes: list[torch.dtype] = []
    method.regressor.register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    student, teacher = {"stage2": torch.randn(4, 4, 3, 3).bfloat16()}, {"stage2": torch.randn(4, 6, 3, 3).bfloat16()}
    batch = make_batch(make_setup({}, {}), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, student, teacher, make_progress())[""]
    outside = method.terms(batch, student, teacher, make_progress())[""]
    assert dtypes == [torch.bfloat16, torch.float32]
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)
