"""`pkd` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch
import torch.nn.functional as F

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_pkd.losses import pkd_loss, resize, standardise
from distillctl_pkd.method import PKD
from distillctl_pkd.plugin import SPEC


def draw(*shape, seed):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 3


def channels_of(maps):
    """The values of each channel over batch and positions, as lists."""
    images = maps.tolist()
    return [[value for image in images for row in image[c] for value in row] for c in range(len(images[0]))]


def standardised(values):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [(value - mean) / (deviation + 1e-6) for value in values]


def by_loops(student, teacher):
    total, count = 0.0, 0
    for ours, theirs in zip(channels_of(student), channels_of(teacher), strict=True):
        for s, t in zip(standardised(ours), standardised(theirs), strict=True):
            total += (s - t) ** 2
            count += 1
    return total / count / 2


def line_by_loops(values, new):
    """Bilinear interpolation of one line: positions are the centres of cells, and beyond the outer ones nothing changes."""
    result = []
    for i in range(new):
        place = min(max((i + 0.5) * len(values) / new - 0.5, 0.0), len(values) - 1.0)
        low = min(int(place), len(values) - 1)
        high = min(low + 1, len(values) - 1)
        result.append(values[low] * (1 - place + low) + values[high] * (place - low))
    return result


def resized(maps, height, width):
    result = []
    for image in maps.tolist():
        planes = []
        for plane in image:
            wide = [line_by_loops(row, width) for row in plane]
            columns = [line_by_loops([row[j] for row in wide], height) for j in range(width)]
            planes.append([[columns[j][i] for j in range(width)] for i in range(height)])
        result.append(planes)
    return torch.tensor(result, dtype=maps.dtype)


@pytest.mark.parametrize("shape", [(5, 3, 2, 4), (1, 2, 3, 3), (7, 4, 1, 1), (2, 1, 1, 1)])
def test_formula(shape):
    student, teacher = draw(*shape, seed=0), draw(*shape, seed=1)
    loss = pkd_loss(student, teacher)
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    assert loss.item() == pytest.approx(by_loops(student, teacher), rel=1e-12)


def test_value_by_hand():
    """(0, 2) becomes (−1, 1)/√2 and (5, 1) the contrary: ½ · (√2)² = 1; the other channel agrees."""
    student = torch.tensor([[[[0.0, 2.0]], [[1.0, 4.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[5.0, 1.0]], [[2.0, 8.0]]]], dtype=torch.float64)
    assert pkd_loss(student, teacher).item() == pytest.approx(0.5, rel=1e-5)


def test_it_is_one_less_the_correlation_of_the_channels():
    student, teacher = draw(6, 4, 3, 3, seed=0), draw(6, 4, 3, 3, seed=1)
    rows = zip(student.transpose(0, 1).flatten(1), teacher.transpose(0, 1).flatten(1), strict=True)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in rows])
    count = 6 * 3 * 3
    assert pkd_loss(student, teacher).item() == pytest.approx((count - 1) / count * (1 - correlation.mean().item()), rel=1e-5)


@pytest.mark.parametrize(("old", "new"), [((2, 3), (4, 6)), ((5, 4), (2, 4)), ((8, 8), (2, 2)), ((3, 7), (7, 3)), ((1, 2), (3, 1))])
def test_resizing_is_bilinear(old, new):
    maps = draw(2, 3, *old, seed=0)
    torch.testing.assert_close(resize(maps, new), resized(maps, *new), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(resize(maps, new), F.interpolate(maps, new, mode="bilinear"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [((2, 3), (4, 6)), ((6, 4), (3, 2)), ((4, 2), (2, 4))])
def test_the_students_map_takes_the_size_of_the_teachers(ours, theirs):
    student, teacher = draw(3, 4, *ours, seed=0), draw(3, 4, *theirs, seed=1)
    assert pkd_loss(student, teacher).item() == pytest.approx(by_loops(resized(student, *theirs), teacher), rel=1e-10)


def test_stages_are_convolved_where_channels_differ_and_added_up():
    """The second pair has equal channels, and the teacher's map is larger."""
    shapes = {"stage1": (3, 4, 4), "stage2": (5, 2, 3)}, {"stage1": (4, 4, 4), "stage2": (5, 3, 4)}
    setup = make_setup(*shapes)
    torch.manual_seed(0)
    method = PKD(options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"]), setup).double()
    (weight,) = method.parameters()
    student, teacher = ({name: draw(3, *shape, seed=i) for i, (name, shape) in enumerate(side.items())} for side in shapes)
    (loss,) = method.terms(make_batch(setup, 3), student, teacher, make_progress()).values()
    mixed = torch.zeros(3, 4, 4, 4, dtype=torch.float64)
    for o in range(4):
        for c in range(3):
            mixed[:, o] += weight.detach()[o, c, 0, 0] * student["stage1"][:, c]
    expected = by_loops(mixed, teacher["stage1"]) + by_loops(resized(student["stage2"], 3, 4), teacher["stage2"])
    assert loss.item() == pytest.approx(expected, rel=1e-10)


# -- invariants -------------------------------------------------------------------------------------------------------


def test_mean_and_spread_of_a_channel_do_not_matter():
    student, teacher = draw(4, 3, 2, 3, seed=0), draw(4, 3, 2, 3, seed=1)
    scale = torch.tensor([0.1, 5.0, 300.0], dtype=torch.float64).reshape(3, 1, 1)
    before = pkd_loss(student, teacher).item()
    assert pkd_loss(scale * student - 7, teacher).item() == pytest.approx(before, rel=1e-4)
    assert pkd_loss(student, scale * teacher + 4).item() == pytest.approx(before, rel=1e-4)
    assert pkd_loss(-student, teacher).item() == pytest.approx(2 * 23 / 24 - before, rel=1e-4)
    each = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    assert pkd_loss(each * student, teacher).item() != pytest.approx(before, rel=1e-3)  # of one image they do


def test_zero_with_zero_gradient_where_channels_rise_together():
    teacher = draw(4, 3, 2, 3, seed=0)
    student = (teacher * 4 + 2).requires_grad_()
    loss = pkd_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-11)
    assert student.grad.abs().max() < 1e-6
    assert pkd_loss(-teacher, teacher).item() == pytest.approx(2 * 23 / 24, rel=1e-5)


def test_channels_have_mean_0_and_the_unbiased_deviation_1():
    maps = standardise(draw(4, 3, 2, 5, seed=0))
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(maps.transpose(0, 1).flatten(1).std(1), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0)


def test_twice_the_batch_changes_the_value_as_the_docstring_says():
    student, teacher = draw(3, 2, 2, 2, seed=0), draw(3, 2, 2, 2, seed=1)
    twice = pkd_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1)).item()
    assert twice == pytest.approx(pkd_loss(student, teacher).item() * (1 - 1 / 24) / (1 - 1 / 12), rel=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (3, 1)])
def test_gradient_is_that_of_the_formula(size):
    teacher = draw(2, 3, *size, seed=1)
    assert torch.autograd.gradcheck(lambda maps: pkd_loss(maps, teacher), draw(2, 3, 2, 2, seed=0).requires_grad_())


# -- special inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e4])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_constant_channel_is_compared_as_zeros_and_its_gradient_stays_small(side, value):
    """Divided by 10⁻⁶, what rounding leaves of 10⁴ would be in the thousands, and every gradient would be a million times as large."""
    student, teacher = draw(8, 3, 4, 4, seed=0).float(), draw(8, 3, 4, 4, seed=1).float()
    for maps in {"student": (student,), "teacher": (teacher,), "both": (student, teacher)}[side]:
        maps[:, 1] = value
    loss = pkd_loss(student.requires_grad_(), teacher)
    loss.backward()
    others = by_loops(student.detach()[:, [0, 2]].double(), teacher[:, [0, 2]].double()) * 2 / 3
    expected = others + (0 if side == "both" else 127 / 128 / 2 / 3)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert student.grad.abs().max() < 0.1
    assert side == "teacher" or student.grad[:, 1].abs().max() < 0.05


def test_a_channel_that_hardly_varies_is_standardised():
    maps = draw(8, 2, 4, 4, seed=0) - 3
    torch.testing.assert_close(standardise(1e-3 * maps), standardise(maps), rtol=2e-3, atol=0)
    assert standardise(1e-9 * maps).abs().max() < 1e-7


def test_one_image_with_one_position_is_zero_with_a_graph():
    student = draw(1, 3, 2, 2, seed=0).requires_grad_()
    loss = pkd_loss(student, draw(1, 3, 1, 1, seed=1))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_one_image_is_compared_by_its_positions():
    student, teacher = draw(1, 3, 4, 4, seed=0), draw(1, 3, 4, 4, seed=1)
    assert pkd_loss(student, teacher).item() == pytest.approx(by_loops(student, teacher), rel=1e-12)
    assert pkd_loss(student, teacher) > 0.5
