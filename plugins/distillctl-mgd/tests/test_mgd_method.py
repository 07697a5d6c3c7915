from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from distillctl import RunError, split_decay
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_mgd.losses import generation_loss
from distillctl_mgd.method import MGD, draw_mask
from distillctl_mgd.plugin import register_method

SPEC = register_method()
SHAPE = (8, 3, 3)


def build(student: tuple[int, ...] = SHAPE, teacher: tuple[int, ...] = SHAPE, **options: object) -> tuple[MGD, object]:
    setup = make_setup({"last": student}, {"last": teacher})
    torch.manual_seed(0)
    return MGD(options_of(SPEC, **options), setup), make_batch(setup, 4)


def run(method: MGD, batch: object, student: Tensor, teacher: Tensor) -> Tensor:
    return method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]


# -- the mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "shape"), [("channel", (50, 40, 1, 1)), ("spatial", (50, 1, 6, 7))])
def test_share_of_hidden_entries_is_the_ratio(mask: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    keep = draw_mask(50, torch.zeros(50, 40, 6, 7), mask, 0.15)
    assert (keep.shape, keep.dtype) == (shape, torch.bool)
    spread = (0.15 * 0.85 / keep.numel()) ** 0.5
    assert (~keep).double().mean().item() == pytest.approx(0.15, abs=4 * spread)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mask_is_drawn_in_float32_whatever_the_maps_are(dtype: torch.dtype) -> None:
    """bfloat16 has no number between 0 and 1/256 to draw: a ratio of 0.001 would hide four times as many."""
    maps = torch.zeros(400, 500, 1, 1)
    draws = []
    for seen in (maps, maps.to(dtype)):
        torch.manual_seed(0)
        draws.append(draw_mask(400, seen, "channel", 0.001))
    assert torch.equal(*draws)
    assert (~draws[1]).double().mean().item() == pytest.approx(0.001, rel=0.3)


@pytest.mark.parametrize("mask", ["channel", "spatial"])
def test_ratio_zero_keeps_everything(mask: str) -> None:
    assert draw_mask(50, torch.zeros(50, 40, 6, 7), mask, 0.0).all()


def test_mask_comes_from_the_global_seed() -> None:
    method, batch = build(mask_ratio=0.5)
    student, teacher = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(run(method, batch, student, teacher).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("mask", ["channel", "spatial"])
def test_hidden_entries_get_no_gradient_and_the_others_do(mask: str) -> None:
    method, batch = build(mask=mask, mask_ratio=0.5)
    method.generator = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    seen: list[Tensor] = []
    method.generator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    student = (torch.rand(4, *SHAPE) + 0.1).requires_grad_()  # no zeros of its own
    run(method, batch, student, torch.randn(4, *SHAPE)).backward()
    hidden = seen[0] == 0
    assert hidden.any()
    assert not hidden.all()
    assert torch.equal(student.grad == 0, hidden)
    dims = (2, 3) if mask == "channel" else (1,)
    assert torch.equal(hidden.all(dims), hidden.any(dims))
    torch.testing.assert_close(seen[0][~hidden], student.detach()[~hidden], rtol=0, atol=0)  # kept as they are, not rescaled


# -- modules ----------------------------------------------------------------------------------------------------------


def test_align_only_where_channels_differ() -> None:
    same, _ = build((8, 3, 3), (8, 3, 3))
    other, _ = build((6, 3, 3), (8, 3, 3))
    assert not list(same.align.parameters())
    assert other.align.weight.shape == (8, 6, 1, 1)
    assert [p.shape for p in same.generator.parameters()] == [(8, 8, 3, 3), (8,), (8, 8, 3, 3), (8,)]


def test_feature_that_is_no_map_is_refused() -> None:
    with pytest.raises(RunError, match=r"`mgd` needs a feature map \(C, H, W\), but `last` of `tiny_teacher` has shape \(8,\)"):
        build((6, 3, 3), (8,))


@pytest.mark.parametrize(
    "options", [{"student_stage": "stages"}, {"teacher_stage": ""}, {"mask": "pixel"}, {"mask_ratio": 1.0}, {"mask_ratio": -0.1}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_wanted_features_are_the_chosen_stages() -> None:
    wants = MGD.wants(options_of(SPEC, student_stage="stage2", teacher_stage="layer3.0"))
    assert (wants.student, wants.teacher) == (("stage2",), ("layer3.0",))


# -- precision --------------------------------------------------------------------------------------------------------


def test_generator_runs_in_the_precision_of_the_run_and_the_loss_in_float32() -> None:
    method, batch = build()
    dtypes: list[torch.dtype] = []
    method.generator.register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    student, teacher = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(method, batch, student.bfloat16(), teacher.bfloat16())
    outside = run(method, batch, student.bfloat16(), teacher.bfloat16())
    assert dtypes == [torch.bfloat16, torch.float32]
    assert (inside.dtype, outside.dtype) == (torch.float32, torch.float32)


def test_sum_of_squares_does_not_overflow_float16() -> None:
    maps = torch.full((1, 64, 4, 4), 10.0, dtype=torch.float16)
    assert generation_loss(maps, torch.zeros_like(maps), "sum").item() == 102_400  # above 65,504


def test_reductions_differ_by_the_size_of_the_map() -> None:
    generated, target = torch.randn(5, 3, 2, 4), torch.randn(5, 3, 2, 4)
    torch.testing.assert_close(generation_loss(generated, target, "sum"), generation_loss(generated, target, "mean") * 24)


def test_biases_decay_where_the_option_says_so() -> None:
    for options, decays in (({}, [0.1, 0.0]), ({"decay_biases": True}, [0.1])):
        method, _ = build((4, 3, 3), **options)
        groups = split_decay([{**group, "weight_decay": 0.1} for group in method.parameter_groups()], "weights")
        assert [group["weight_decay"] for group in groups] == decays
        assert sum(len(group["params"]) for group in groups) == 6
