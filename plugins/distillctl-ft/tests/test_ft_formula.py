"""The formulas of METHODS as plain loops in float64, and what must hold of them."""

import math

import pytest
import torch
import torch.nn.functional as F

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ft.losses import direction, factor_loss
from distillctl_ft.method import FT
from distillctl_ft.plugin import SPEC

EXACT = {"rtol": 1e-10, "atol": 1e-14}


def unit(row):
    length = math.sqrt(sum(v * v for v in row))
    return [v / length for v in row]


def rows_by_loops(factor, kind, p1):
    """One unit vector for each sample, from nested lists (B, C, H, W)."""
    rows = []
    for sample in factor:
        if kind == "full":
            rows.append(unit([v for plane in sample for line in plane for v in line]))
        else:
            height, width = len(sample[0]), len(sample[0][0])
            squares = [
                sum(abs(plane[i][j]) ** p1 for plane in sample) / len(sample) for i in range(height) for j in range(width)
            ]  # fmt: skip
            rows.append(unit(squares))
    return rows


def loss_by_loops(student, teacher, kind, p1, p2):
    ours, theirs = (rows_by_loops(f.tolist(), kind, p1) for f in (student, teacher))
    parts = [abs(a - b) ** p2 for s, t in zip(ours, theirs, strict=True) for a, b in zip(s, t, strict=True)]
    return torch.tensor(sum(parts) / len(parts), dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["attention", "full"])
@pytest.mark.parametrize(("p1", "p2"), [(2.0, 1.0), (2.0, 2.0), (1.0, 1.0), (3.0, 1.5)])
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (4, 5, 3, 2)])
def test_loss_is_the_formula(kind, p1, p2, shape):
    student, teacher = draw(*shape, seed=1), draw(*shape, seed=2)
    value = factor_loss(student, teacher, kind=kind, p1=p1, p2=p2)
    torch.testing.assert_close(value, loss_by_loops(student, teacher, kind, p1, p2), **EXACT)


def test_hand_computed():
    """Two channels, two positions. Attention: means (½, ½) and (½·9, ½·16), directions (1, 1)/√2 and (9, 16)/√337."""
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]], dtype=torch.float64)
    attention = (abs(1 / math.sqrt(2) - 9 / math.sqrt(337)) + abs(1 / math.sqrt(2) - 16 / math.sqrt(337))) / 2
    full = (abs(1 / math.sqrt(2) - 0.6) + abs(1 / math.sqrt(2) - 0.8)) / 4
    assert factor_loss(student, teacher).item() == pytest.approx(attention, rel=1e-12)
    assert factor_loss(student, teacher, kind="full").item() == pytest.approx(full, rel=1e-12)


def test_d09_default_collapses_the_factor_to_an_attention_map_and_full_does_not():
    """RepDistiller's loss does not see which channel is active; the paper's does."""
    student = draw(3, 6, 4, 4)
    teacher = student[:, torch.tensor([5, 0, 1, 2, 3, 4])]
    assert direction(student, "attention", 2.0).shape == (3, 16)
    assert direction(student, "full", 2.0).shape == (3, 96)
    assert factor_loss(student, teacher).item() == pytest.approx(0.0, abs=1e-15)
    assert factor_loss(student, teacher, kind="full") > 1e-3
    assert options_of(SPEC).factor == "attention"


@pytest.mark.parametrize("kind", ["attention", "full"])
def test_zero_at_equality_and_for_another_scale(kind):
    student = draw(3, 4, 3, 3)
    scale = torch.tensor([1e-8, 3.0, 1e9], dtype=torch.float64).reshape(3, 1, 1, 1)
    assert factor_loss(student, student.clone(), kind=kind) == 0
    assert factor_loss(scale * student, student, kind=kind).item() == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("kind", ["attention", "full"])
def test_dividing_by_the_largest_value_leaves_the_gradient_as_it_is(kind):
    student, teacher = draw(2, 3, 2, 2, seed=3).requires_grad_(), draw(2, 3, 2, 2, seed=4)
    assert torch.autograd.gradcheck(lambda s: factor_loss(s, teacher, kind=kind, p2=2.0), student)


@pytest.mark.parametrize("kind", ["attention", "full"])
@pytest.mark.parametrize("p1", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4, 1e18])
def test_float32_stays_finite_at_any_scale(kind, p1, scale):
    student = (scale * draw(3, 4, 2, 2).float()).requires_grad_()
    loss = factor_loss(student, draw(3, 4, 2, 2, seed=1).float(), kind=kind, p1=p1)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert (student.grad == 0).all() == (scale < 1e-12)


# -- with the two networks --------------------------------------------------------------------------------------------


def method_of(student, teacher, **options):
    setup = make_setup({"last": student}, {"last": teacher})
    torch.manual_seed(0)
    return FT(options_of(SPEC, **options), setup).double(), make_batch(setup, 4)


def encode(maps, weights, batch_norm):
    """Three 3×3 convolutions with zero padding, each followed by (batch normalisation and) LeakyReLU 0.1; own code, own arithmetic."""
    for weight, bias in weights:
        patches = F.unfold(maps, 3, padding=1)  # (B, C·9, H·W)
        values = torch.einsum("oc,bcp->bop", weight.flatten(1), patches) + bias.reshape(-1, 1)
        if batch_norm:
            mean = values.mean((0, 2), keepdim=True)
            values = (values - mean) / ((values - mean).square().mean((0, 2), keepdim=True) + 1e-5).sqrt()
        values = torch.where(values > 0, values, 0.1 * values)
        maps = values.unflatten(2, maps.shape[2:])
    return maps


def convolutions(state, prefix):
    names = [name for name in state if name.startswith(prefix) and name.endswith("weight") and state[name].ndim == 4]
    return [(state[name], state.get(name.replace("weight", "bias"), torch.zeros((), dtype=torch.float64))) for name in names]


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("kind", ["attention", "full"])
def test_main_part_compares_translation_and_paraphrase(batch_norm, kind):
    method, batch = method_of((3, 2, 3), (6, 2, 3), batch_norm=batch_norm, factor=kind)
    method.enter(None)
    student, teacher = draw(4, 3, 2, 3, seed=1), draw(4, 6, 2, 3, seed=2)
    state = method.state_dict()
    ours = encode(student, convolutions(state, "translator."), batch_norm)
    theirs = encode(teacher, convolutions(state, "paraphraser.encoder."), False)
    assert ours.shape == theirs.shape == (4, 3, 2, 3)
    value = method.terms(batch, {"last": student}, {"last": teacher}, make_progress())[""]
    torch.testing.assert_close(value, loss_by_loops(ours, theirs, kind, 2.0, 1.0), **EXACT)


def test_phase_is_the_squared_error_of_the_autoencoder():
    method, batch = method_of((3, 2, 3), (6, 2, 3))
    (phase,) = method.phases()
    method.enter(phase)
    teacher = draw(4, 6, 2, 3, seed=2)
    state = method.state_dict()
    code = encode(teacher, convolutions(state, "paraphraser.encoder."), False)
    # A transposed convolution of stride 1 is a convolution by the kernel that is turned over, input and output exchanged.
    turned = [(w.transpose(0, 1).flip((2, 3)), b) for w, b in convolutions(state, "paraphraser.decoder.")]
    rebuilt = encode(code, turned, False)
    value = method.terms(batch, {}, {"last": teacher}, make_progress(), phase=phase.name)[""]
    differences = [(a - b) ** 2 for a, b in zip(rebuilt.flatten().tolist(), teacher.flatten().tolist(), strict=True)]
    assert value.item() == pytest.approx(sum(differences) / len(differences), rel=1e-10)


@pytest.mark.parametrize(("student", "teacher"), [((3, 4, 2), (6, 2, 4)), ((3, 2, 2), (6, 4, 4))])
def test_larger_factor_is_pooled(student, teacher):
    method, batch = method_of(student, teacher, batch_norm=False)
    ours, theirs = draw(4, *student, seed=1), draw(4, *teacher, seed=2)
    value = method.terms(batch, {"last": ours}, {"last": theirs}, make_progress())[""]
    state = method.state_dict()
    factors = []
    for maps, prefix in ((ours, "translator."), (theirs, "paraphraser.encoder.")):
        factor = encode(maps, convolutions(state, prefix), False)
        height, width = factor.shape[2] // 2, factor.shape[3] // 2
        factors.append(factor.unflatten(2, (2, -1)).mean(3) if height == 2 else factor)
        factors[-1] = factors[-1].unflatten(3, (2, -1)).mean(4) if width == 2 else factors[-1]
    torch.testing.assert_close(value, loss_by_loops(*factors, "attention", 2.0, 1.0), **EXACT)
