"""How the projectors of `pefd` start, which features it takes, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_pefd.method import PEFD
from distillctl_pefd.plugin import SPEC


def build(student: tuple[int, ...] = (64,), teacher: tuple[int, ...] = (48,), **options: object) -> PEFD:
    torch.manual_seed(0)
    return PEFD(options_of(SPEC, **options), make_setup({"pooled": student}, {"pooled": teacher}))


@pytest.mark.parametrize("projectors", [1, 3, 4])
def test_as_many_projectors_as_asked_for_and_no_more(projectors: int) -> None:
    shapes = {name: tuple(p.shape) for name, p in build(projectors=projectors).named_parameters()}
    assert shapes == {"projectors.weight": (projectors * 48, 64), "projectors.bias": (projectors * 48,)}


def test_projectors_start_apart_and_as_single_layers_would() -> None:
    """Projectors of one start would stay one projector. The start of a layer is uniform in ±1/√d_s."""
    layer = build().projectors
    for tensor in (layer.weight.detach().reshape(3, 48, 64), layer.bias.detach().reshape(3, 48)):
        assert all((tensor[a] - tensor[b]).abs().mean() > 0.05 for a, b in ((0, 1), (0, 2), (1, 2)))
        for one in tensor:
            assert one.abs().max() <= 1 / 8
            assert one.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.2)


def test_equal_widths_are_projected_too() -> None:
    assert build((8,), (8,), projectors=1).projectors.weight.shape == (8, 8)


def test_maps_are_averaged_over_their_positions() -> None:
    method = build((6, 3, 2), (5, 4, 4))
    student, teacher = torch.randn(4, 6, 3, 2), torch.randn(4, 5, 4, 4)
    batch, progress = make_batch(make_setup({}, {}), 4), make_progress()
    value = method(batch, {"pooled": student}, {"pooled": teacher}, progress)
    vectors = method(batch, {"pooled": student.flatten(2).mean(2)}, {"pooled": teacher.flatten(2).mean(2)}, progress)
    torch.testing.assert_close(value, vectors)


@pytest.mark.parametrize(("student", "teacher", "side"), [((9, 6), (8,), "student"), ((6,), (9, 8), "teacher")])
def test_tokens_are_refused(student: tuple[int, ...], teacher: tuple[int, ...], side: str) -> None:
    message = rf"`pefd` needs a vector \(d,\) or a feature map \(C, H, W\), but `pooled` of `tiny_{side}` has shape \(9, "
    with pytest.raises(RunError, match=message):
        build(student, teacher)


@pytest.mark.parametrize("options", [{"projectors": 0}, {"projectors": 1.5}, {"student_stage": "stages"}, {"teacher_stage": ""}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_defaults() -> None:
    options = options_of(SPEC)
    assert (options.projectors, options.student_stage, options.teacher_stage) == (3, "pooled", "pooled")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (25.0, 1.0, 0.0)
    wants = PEFD.wants(options_of(SPEC, student_stage="last", teacher_stage="fc:input"))
    assert (wants.student, wants.teacher) == (("last",), ("fc:input",))
