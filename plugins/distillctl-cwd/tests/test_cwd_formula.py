"""`cwd` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_cwd.losses import cwd_loss
from distillctl_cwd.method import CWD
from distillctl_cwd.plugin import SPEC


def draw(*shape, seed):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shares(plane, temperature):
    values = [value / temperature for row in plane for value in row]
    exponentials = [math.exp(value - max(values)) for value in values]
    return [e / sum(exponentials) for e in exponentials]


def by_loops(student, teacher, temperature):
    total, count = 0.0, 0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        for plane_s, plane_t in zip(ours, theirs, strict=True):
            pairs = zip(shares(plane_t, temperature), shares(plane_s, temperature), strict=True)
            total += sum(a * math.log(a / b) for a, b in pairs)
            count += 1
    return temperature**2 * total / count


def mixed(maps, weight):
    """A 1×1 convolution without bias, by loops."""
    wanted, channels = weight.shape[:2]
    result = torch.zeros(len(maps), wanted, *maps.shape[2:], dtype=maps.dtype)
    for o in range(wanted):
        for c in range(channels):
            result[:, o] += weight[o, c, 0, 0] * maps[:, c]
    return result


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (1, 2, 1, 2), (2, 1, 4, 4)])
def test_formula(shape, temperature):
    student, teacher = draw(*shape, seed=0), draw(*shape, seed=1)
    loss = cwd_loss(student, teacher, temperature)
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    assert loss.item() == pytest.approx(by_loops(student, teacher, temperature), rel=1e-10)


def test_value_by_hand():
    """One channel: φ_t = (4/5, 1/5), φ_s = (1/2, 1/2); the other agrees. At T = 2 the activations are twice the logarithms."""
    teacher = torch.tensor([[[[4.0, 1.0]], [[3.0, 2.0]]]], dtype=torch.float64).log()
    student = torch.tensor([[[[7.0, 7.0]], [[6.0, 4.0]]]], dtype=torch.float64).log()
    expected = (4 / 5 * math.log(8 / 5) + 1 / 5 * math.log(2 / 5)) / 2
    assert cwd_loss(student, teacher, 1.0).item() == pytest.approx(expected, rel=1e-12)
    assert cwd_loss(2 * student, 2 * teacher, 2.0).item() == pytest.approx(4 * expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_stages_are_convolved_where_channels_differ_and_added_up(temperature):
    """The second pair has equal channels, and the teacher's map is twice as high and wide."""
    shapes = {"stage1": (3, 4, 4), "stage2": (5, 2, 3)}, {"stage1": (4, 4, 4), "stage2": (5, 4, 6)}
    setup = make_setup(*shapes)
    options = options_of(SPEC, student_stages=["stages"], teacher_stages=["stages"], temperature=temperature)
    torch.manual_seed(0)
    method = CWD(options, setup).double()
    (weight,) = method.parameters()
    assert weight.shape == (4, 3, 1, 1)
    student, teacher = ({name: draw(3, *shape, seed=i) for i, (name, shape) in enumerate(side.items())} for side in shapes)
    (loss,) = method.terms(make_batch(setup, 3), student, teacher, make_progress()).values()
    pooled = teacher["stage2"].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    expected = by_loops(mixed(student["stage1"], weight.detach()), teacher["stage1"], temperature)
    expected += by_loops(student["stage2"], pooled, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_larger_student_is_pooled():
    setup = make_setup({"last": (4, 6, 4)}, {"last": (4, 3, 2)})
    student, teacher = draw(2, 4, 6, 4, seed=0), draw(2, 4, 3, 2, seed=1)
    (loss,) = CWD(options_of(SPEC), setup).terms(make_batch(setup, 2), {"last": student}, {"last": teacher}, make_progress()).values()
    assert loss.item() == pytest.approx(by_loops(student.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)), teacher, 1.0), rel=1e-10)


# -- invariants -------------------------------------------------------------------------------------------------------


def test_what_is_added_to_a_channel_of_an_image_does_not_matter():
    student, teacher = draw(3, 4, 2, 3, seed=0), draw(3, 4, 2, 3, seed=1)
    shift = 50 * draw(3, 4, 1, 1, seed=2)
    before = cwd_loss(student, teacher, 1.0).item()
    assert cwd_loss(student + shift, teacher, 1.0).item() == pytest.approx(before, rel=1e-10)
    assert cwd_loss(student, teacher + shift, 1.0).item() == pytest.approx(before, rel=1e-10)
    assert cwd_loss(student.flip(1), teacher, 1.0).item() != pytest.approx(before, rel=1e-3)
    assert cwd_loss(2 * student, teacher, 1.0).item() != pytest.approx(before, rel=1e-3)


def test_zero_with_zero_gradient_where_channels_differ_by_a_number():
    teacher = draw(3, 4, 2, 3, seed=0)
    student = (teacher + draw(3, 4, 1, 1, seed=1)).requires_grad_()
    loss = cwd_loss(student, teacher, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_large_temperatures_give_half_the_variance_of_the_difference():
    """Why T² stands there: KL is (d − mean d)²/2T² in the limit, with d the difference of two channels."""
    student, teacher = draw(3, 4, 2, 3, seed=0), draw(3, 4, 2, 3, seed=1)
    limit = (student - teacher).flatten(2).var(2, correction=0).mean() / 2
    assert cwd_loss(student, teacher, 1e4).item() == pytest.approx(limit.item(), rel=1e-3)


def test_gradient_is_that_of_the_formula():
    teacher = draw(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda maps: cwd_loss(maps, teacher, 2.0), draw(2, 3, 2, 2, seed=0).requires_grad_())


# -- special inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["zeros", "constant", "peaks", "elsewhere", "one position", "dead channel of the teacher"])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e4])
def test_value_and_gradient_are_finite(case, temperature):
    """Of a share that is 0 the logarithm is not a number."""
    student, teacher = draw(2, 3, 4, 4, seed=0).float(), draw(2, 3, 4, 4, seed=1).float()
    peak = torch.zeros(2, 3, 4, 4)
    peak[..., 1, 2] = 1e4
    pairs = {
        "zeros": (torch.zeros_like(student), torch.zeros_like(teacher)),
        "constant": (torch.full_like(student, 7.0), teacher),
        "peaks": (peak.clone(), peak),
        "elsewhere": (peak.flip(2), peak),
        "one position": (student[..., :1, :1].contiguous(), teacher[..., :1, :1]),
        "dead channel of the teacher": (student, teacher * torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)),
    }
    student, teacher = pairs[case]
    loss = cwd_loss(student.requires_grad_(), teacher, temperature)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    if case in ("zeros", "one position", "peaks"):
        assert loss.item() == pytest.approx(0, abs=1e-6 * temperature**2)
