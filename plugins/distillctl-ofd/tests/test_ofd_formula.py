"""`ofd` against its definition in plain Python loops, and what must hold of it."""

import math
import statistics

import pytest
import torch

from distillctl import Batch
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ofd.losses import negative_means, ofd_loss, partial_distance
from distillctl_ofd.method import OFD, connector
from distillctl_ofd.plugin import SPEC


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def margin_by_hand(gamma, beta):
    scale = abs(gamma)
    if scale == 0:
        return min(beta, 0.0)
    normal = statistics.NormalDist()
    below = normal.cdf(-beta / scale)
    return beta - scale * normal.pdf(beta / gamma) / below if below > 0.001 else -3 * scale


def distance_by_loops(student, teacher, margin):
    total = 0.0
    for s_image, t_image in zip(student.tolist(), teacher.tolist(), strict=True):
        for s_plane, t_plane, m in zip(s_image, t_image, margin.tolist(), strict=True):
            for s_row, t_row in zip(s_plane, t_plane, strict=True):
                for s, t in zip(s_row, t_row, strict=True):
                    raised = max(t, m)
                    if s > raised or t > 0:
                        total += (s - raised) ** 2
    return total / len(student)


def distance_of_three_cases(student, teacher, margin):
    """The same loss as mdistiller writes it: by where the teacher's value lies."""
    m = margin[:, None, None]
    low, middle, high = teacher <= m, (teacher > m) & (teacher <= 0), teacher > 0
    squares = (student - m) ** 2 * (low & (student > m)) + (student - teacher) ** 2 * ((middle & (student > teacher)) | high)
    return squares.sum() / len(student)


@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.3, 2.5, -0.01, 0.0])
@pytest.mark.parametrize("beta", [-50.0, -2.0, -0.1, 0.0, 0.1, 0.5, 2.0, 9.0])
def test_margin_is_the_mean_of_the_negative_values(gamma, beta):
    margin = negative_means(torch.tensor([gamma], dtype=torch.float64), torch.tensor([beta], dtype=torch.float64))
    assert margin.dtype == torch.float64
    assert margin.item() == pytest.approx(margin_by_hand(gamma, beta), rel=1e-9, abs=1e-11)
    assert margin.item() <= 0


def test_margin_of_known_normal_distributions():
    """N(0, 1): −√(2/π). N(−40, 1) is negative throughout: its mean. N(9, 2²) is hardly ever: −3 · 2. Constants: as they are, or 0."""
    gamma, beta = torch.tensor([1.0, 1.0, 2.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, -40.0, 9.0, -0.25, 0.25, 0.0])
    expected = torch.tensor([-math.sqrt(2 / math.pi), -40.0, -6.0, -0.25, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(negative_means(gamma, beta), expected, rtol=1e-9, atol=1e-11)


def test_margin_is_what_sampling_gives():
    samples = 1.5 * draw(400_000) + 0.7
    expected = samples[samples < 0].mean()
    torch.testing.assert_close(negative_means(torch.tensor([1.5]), torch.tensor([0.7])), expected[None], rtol=1e-2, atol=0)


def test_margin_changes_its_form_where_negative_values_are_rarer_than_one_in_a_thousand():
    edge = -statistics.NormalDist().inv_cdf(0.001)
    below, above = negative_means(
        torch.ones(2, dtype=torch.float64), torch.tensor([edge - 1e-6, edge + 1e-6], dtype=torch.float64)
    ).tolist()
    assert -0.3 < below < -0.25
    assert above == -3


@pytest.mark.parametrize("values", [(1e-30, 1.0), (1e-30, -1.0), (1e30, -1e30), (1e-30, -1e30), (1e-30, 1e30)])
def test_extreme_parameters_give_finite_margins(values):
    margin = negative_means(*(torch.tensor([value]) for value in values))
    assert margin.isfinite().all()
    assert (margin <= 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (5, 4, 1, 3)])
def test_distance_is_the_formula_in_both_forms(shape):
    student, teacher = draw(*shape, seed=1, scale=2.0), draw(*shape, seed=2)
    margin = -draw(shape[1], seed=3).abs()
    value = partial_distance(student, teacher, margin)
    assert value.shape == ()
    assert value.item() == pytest.approx(distance_by_loops(student, teacher, margin), rel=1e-12)
    assert value.item() == pytest.approx(distance_of_three_cases(student, teacher, margin).item(), rel=1e-12)


def test_deepest_stage_counts_fully_and_each_before_it_half():
    shapes = [(3, 2, 4, 4), (3, 4, 2, 2), (3, 6, 1, 1)]
    students, teachers = ([draw(*shape, seed=seed + i) for i, shape in enumerate(shapes)] for seed in (0, 10))
    margins = [-draw(shape[1], seed=20 + i).abs() for i, shape in enumerate(shapes)]
    stages = [distance_by_loops(*one) for one in zip(students, teachers, margins, strict=True)]
    expected = stages[0] / 4 + stages[1] / 2 + stages[2]
    assert ofd_loss(students, teachers, margins).item() == pytest.approx(expected, rel=1e-12)


def test_zero_where_the_student_equals_the_raised_teacher():
    teacher, margin = draw(2, 3, 4, 4), torch.tensor([-0.2, -0.5, 0.0], dtype=torch.float64)
    student = torch.maximum(teacher, margin[:, None, None]).requires_grad_()
    loss = partial_distance(student, teacher, margin)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_no_loss_where_neither_passes_the_relu():
    """t ≤ 0 and s ≤ max(t, m): the ReLU would forget both."""
    teacher = -draw(2, 3, 4, 4).abs()
    margin = torch.tensor([-0.2, -0.5, -1.0], dtype=torch.float64)
    raised = torch.maximum(teacher, margin[:, None, None])
    assert partial_distance(raised - draw(2, 3, 4, 4, seed=1).abs(), teacher, margin) == 0
    above = (raised + 0.5).requires_grad_()
    loss = partial_distance(above, teacher, margin)
    loss.backward()
    assert loss.item() == pytest.approx(0.25 * 3 * 16)
    assert (above.grad > 0).all(), "the student is pushed down"


def test_hand_value():
    """One channel with m = −0.5: a hit above 0 (0.04), one pushed to the margin (0.09), one below it (0), one missed (4)."""
    student = torch.tensor([1.2, -0.2, -7.0, -1.0]).reshape(1, 1, 2, 2).double()
    teacher = torch.tensor([1.0, -3.0, -3.0, 1.0]).reshape(1, 1, 2, 2).double()
    assert partial_distance(student, teacher, torch.tensor([-0.5]).double()).item() == pytest.approx(0.04 + 0.09 + 0 + 4, rel=1e-6)


def test_huge_features_stay_finite():
    student, teacher = (1e4 * draw(2, 512, 28, 28, seed=seed).float() for seed in (0, 1))
    student.requires_grad_()
    loss = partial_distance(student, teacher, -torch.ones(512))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    exact = partial_distance(student.detach().double(), teacher.double(), -torch.ones(512).double())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


SHAPES = {"stage1:pre": (3, 4, 4), "stage2:pre": (5, 2, 2)}
WIDER = {"stage1:pre": (4, 8, 4), "stage2:pre": (6, 2, 1)}


def test_method_is_the_formula_with_pooled_maps(with_norms):
    """The teacher's stage 1 is higher and its stage 2 narrower: each is averaged to the common size, the margin comes afterwards."""
    torch.manual_seed(0)
    setup = with_norms(make_setup(SHAPES, WIDER))
    method = OFD(options_of(SPEC), setup).double()
    student = {name: draw(3, *shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}
    teacher = {name: draw(3, *shape, seed=5 + i) for i, (name, shape) in enumerate(WIDER.items())}
    maps = [
        (student["stage1:pre"], teacher["stage1:pre"].unflatten(2, (4, 2)).mean(3)),
        (student["stage2:pre"].mean(3, keepdim=True), teacher["stage2:pre"]),
    ]
    expected = 0.0
    for number, (s, t) in enumerate(maps):
        connected = torch.einsum("bchw,dc->bdhw", s, method.connectors[number][0].weight[:, :, 0, 0])
        centred = connected - connected.mean((0, 2, 3), keepdim=True)
        connected = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        norm = setup.teacher.model.get_submodule(("bn_stage1_pre", "bn_stage2_pre")[number])
        margin = [margin_by_hand(g, b) for g, b in zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)]
        expected += 2.0 ** (number - 1) * distance_by_loops(connected, t, torch.tensor(margin))

    value = method(make_batch(setup, 3), student, teacher, make_progress())

    assert value.item() == pytest.approx(expected, rel=1e-6)  # the margins are kept in float32


def test_connector_starts_as_the_paper_says():
    torch.manual_seed(0)
    for kernel in (1, 3):
        conv, norm = connector(64, 400, kernel)
        assert conv.bias is None
        assert (conv.kernel_size, conv.padding, conv.stride) == ((kernel, kernel), (kernel // 2, kernel // 2), (1, 1))
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (kernel**2 * 400)), rel=0.02)
        assert conv.weight.mean().item() == pytest.approx(0, abs=0.002)
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_batch_of_one_with_maps_of_one_pixel(with_norms):
    """A channel with one value has no variance; plain batch normalisation raises there."""
    setup = with_norms(make_setup({"stage1:pre": (3, 1, 1)}, {"stage1:pre": (4, 1, 1)}))
    method = OFD(options_of(SPEC), setup)
    student = {"stage1:pre": draw(1, 3, 1, 1).float().requires_grad_()}
    before = {name: value.clone() for name, value in method.named_buffers()}
    loss = method(Batch(*(torch.zeros(1),) * 3), student, {"stage1:pre": draw(1, 4, 1, 1, seed=1).float()}, make_progress())
    loss.backward()
    assert loss.isfinite()
    assert student["stage1:pre"].grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())
