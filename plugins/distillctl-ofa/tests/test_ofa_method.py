from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from distillctl import RunError, Setup
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ofa.method import OFA
from distillctl_ofa.modules import make_branch, separable
from distillctl_ofa.plugin import SPEC

CNN = {"stage1": (6, 16, 16), "stage2": (8, 8, 8), "stage3": (12, 4, 4), "stage4": (20, 2, 2)}
VIT = {f"stage{k}": (12, 7, 7) for k in (1, 2, 3, 4)}
Shapes = dict[str, tuple[int, ...]]


def build(student: Shapes = CNN, **options: object) -> tuple[OFA, Setup]:
    setup = make_setup(student, {})
    torch.manual_seed(0)
    return OFA(options_of(SPEC, **options), setup), setup


def features(setup: Setup, size: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    student = {name: torch.randn(size, *shape, generator=draw).requires_grad_() for name, shape in setup.student.shapes.items()}
    return student, {"logits": 3 * torch.randn(size, setup.num_classes, generator=draw)}


# -- branches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shapes", "last"), [(CNN, 20), (VIT, 12)], ids=["cnn", "vit"])
def test_every_stage_has_a_branch_to_the_width_of_the_last(shapes: Shapes, last: int) -> None:
    method, setup = build(shapes)
    assert len(method.branches) == 4
    for (_, height, width), channels, branch in zip(shapes.values(), [s[0] for s in shapes.values()], method.branches, strict=True):
        assert isinstance(branch, nn.Sequential)
        assert (branch[-1].in_features, branch[-1].out_features) == (last, setup.num_classes)
        assert branch(torch.randn(3, channels, height, width)).shape == (3, setup.num_classes)


def test_each_deeper_stage_is_one_halving_of_its_width() -> None:
    method, _ = build()
    shapes: list[list[tuple[int, ...]]] = []
    for (channels, height, width), branch in zip(CNN.values(), method.branches, strict=True):
        value, found = torch.randn(2, channels, height, width), []
        for layer in list(branch)[:-3]:  # type: ignore[arg-type]
            value = layer(value)
            found.append(tuple(value.shape[1:]))
        shapes.append(found)
    assert shapes == [
        [(8, 8, 8), (12, 4, 4), (20, 2, 2)],
        [(12, 4, 4), (20, 2, 2)],
        [(20, 2, 2)],
        [(20, 2, 2)],  # the deepest: a 1×1 convolution
    ]
    deepest = method.branches[3][0]  # type: ignore[index]
    assert isinstance(deepest, nn.Conv2d)
    assert deepest.kernel_size == (1, 1)


def test_separable_convolution_has_few_weights() -> None:
    """Two times 9 weights for each channel, and two 1×1 convolutions."""
    convolutions = [m for m in separable(6, 8) if isinstance(m, nn.Conv2d)]
    assert [m.weight.numel() for m in convolutions] == [6 * 9, 6 * 6, 6 * 9, 6 * 8]
    assert [m.stride for m in convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]  # the second half works on the smaller map


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (7, 5)])
def test_any_size_of_map_works(size: tuple[int, int]) -> None:
    branch = make_branch([4, 6, 5], 3)
    assert branch(torch.randn(2, 4, *size)).shape == (2, 3)


def test_new_branches_are_undecided() -> None:
    """Small weights and no bias in the linear layer: no class is preferred at the beginning."""
    torch.manual_seed(0)
    linear = make_branch([64], 10)[-1]
    assert isinstance(linear, nn.Linear)
    assert not linear.bias.any()
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("widths", [[64, 128], [128]], ids=["separable", "deepest"])
def test_convolutions_start_as_kaiming_normal_of_what_goes_out(widths: list[int]) -> None:
    torch.manual_seed(0)
    convolutions = [m for m in make_branch(widths, 10).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == (4 if len(widths) == 2 else 1)
    for convolution in convolutions:
        out, _, height, width = convolution.weight.shape
        assert convolution.weight.std().item() == pytest.approx((2 / (out * height * width)) ** 0.5, rel=0.12)


@pytest.mark.parametrize("shapes", [CNN, VIT], ids=["cnn", "vit"])
def test_gradient_reaches_every_stage_and_the_logits(shapes: Shapes) -> None:
    """A teacher of any kind: only its logits are asked for."""
    method, setup = build(shapes)
    student, teacher = features(setup)
    terms = method.terms(make_batch(setup, 3), student, teacher, make_progress())
    terms["branches"].backward()
    assert all(student[name].grad.abs().sum() > 0 for name in shapes)  # type: ignore[union-attr]
    assert student["logits"].grad is None
    terms["logits"].backward()
    assert student["logits"].grad.abs().sum() > 0  # type: ignore[union-attr]


def test_chosen_stages_alone_have_branches() -> None:
    method, setup = build(student_stages=["stage2", "stage4"])
    assert method.stages == ("stage2", "stage4")
    assert [branch[-1].in_features for branch in method.branches] == [20, 20]  # type: ignore[index]
    student, teacher = features(setup)
    method.terms(make_batch(setup, 3), student, teacher, make_progress())["branches"].backward()
    assert [name for name, value in student.items() if value.grad is not None] == ["stage2", "stage4"]


# -- options ----------------------------------------------------------------------------------------------------------


def test_wants_stages_of_the_student_and_nothing_of_the_teacher() -> None:
    wants = OFA.wants(options_of(SPEC))
    assert (wants.student, wants.teacher) == (("stages",), ())
    assert OFA.wants(options_of(SPEC, branch_weight=0.0)).student == ()


@pytest.mark.parametrize(("options", "names"), [({"branch_weight": 0.0}, ["logits"]), ({"logits_weight": 0.0}, ["branches"])])
def test_part_of_weight_zero_is_not_computed(options: dict[str, float], names: list[str]) -> None:
    method, setup = build(**options)
    student, teacher = features(setup)
    assert list(method.terms(make_batch(setup, 3), student, teacher, make_progress())) == names
    assert bool(list(method.parameters())) == (names == ["branches"])


def test_stages_are_refused_where_none_gets_a_branch() -> None:
    with pytest.raises(ValidationError, match="`student_stages` has no effect"):
        options_of(SPEC, branch_weight=0.0, student_stages=["stage3"])
    assert options_of(SPEC, branch_weight=0.0).student_stages == ["stages"]


def test_both_weights_zero_is_refused() -> None:
    with pytest.raises(RunError, match="`branch_weight` and `logits_weight` both 0"):
        build(branch_weight=0.0, logits_weight=0.0)


def test_student_without_stages_is_refused_unless_it_needs_none() -> None:
    with pytest.raises(RunError, match="`ofa` gives every stage a branch, but `tiny_student` declares none") as refusal:
        build({"pooled": (8,)})
    assert "`student_stages`" in str(refusal.value)
    build({"pooled": (8,)}, branch_weight=0.0)


def test_vector_as_stage_is_refused() -> None:
    with pytest.raises(RunError, match=r"`ofa` needs a feature map \(C, H, W\), but `pooled` of `tiny_student` has shape \(20,\)"):
        build({**CNN, "pooled": (20,)}, student_stages=["stage3", "pooled"])


@pytest.mark.parametrize(
    "options", [{"eps": 0.0}, {"branch_weight": -1.0}, {"logits_weight": -0.1}, {"student_stages": []}, {"temperature": 2.0}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


def test_preset_is_the_published_command() -> None:
    (preset,) = SPEC.presets
    assert (preset.dataset, preset.teacher, preset.student, dict(preset.values)) == ("imagenet", "deit_tiny*", "resnet18", {"eps": 1.5})


# -- one image, precision ---------------------------------------------------------------------------------------------


def test_one_image_whose_map_comes_down_to_one_pixel() -> None:
    """A channel with one value has no variance; plain batch normalisation raises there."""
    method, setup = build({"stage1": (6, 4, 4), "stage2": (8, 2, 2), "stage3": (12, 1, 1)})
    student, teacher = features(setup, size=1)
    terms = method.terms(make_batch(setup, 1), student, teacher, make_progress())
    terms["branches"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(student[name].grad.isfinite().all() for name in method.stages)


def test_branches_run_in_the_precision_of_the_run_and_the_loss_in_float32() -> None:
    method, setup = build()
    student, teacher = ({k: v.detach().bfloat16() for k, v in side.items()} for side in features(setup))
    dtypes: list[torch.dtype] = []
    method.branches[0].register_forward_hook(lambda _module, _args, out: dtypes.append(out.dtype))
    batch = make_batch(setup, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = method.terms(batch, student, teacher, make_progress())
    outside = method.terms(batch, student, teacher, make_progress())
    assert dtypes == [torch.bfloat16, torch.float32]
    assert {term.dtype for term in (*inside.values(), *outside.values())} == {torch.float32}
