"""Equal samples, batches of one, large numbers, and options."""

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_rkd.losses import angle_cosines, angle_loss, distance_loss, relative_distances
from distillctl_rkd.method import RKD
from distillctl_rkd.plugin import SPEC

PARTS = [distance_loss, angle_loss]


def draw(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradient(part, student, teacher):
    student = student.clone().requires_grad_()
    loss = part(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    return loss.item(), student.grad


@pytest.mark.parametrize("part", PARTS)
def test_batch_of_one_is_zero_with_a_graph(part):
    """The peers' is NaN: a mean over no pair."""
    loss, grad = gradient(part, draw(1, 5, seed=0), draw(1, 8, seed=1))
    assert loss == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("part", PARTS)
def test_two_samples_teach_nothing(part):
    """Their one distance is the mean of all, and the direction from one to the other is the only one."""
    loss, grad = gradient(part, draw(2, 5, seed=0, dtype=torch.float64), draw(2, 8, seed=1, dtype=torch.float64))
    assert loss < 1e-30
    assert grad.abs().max() < 1e-15


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_rows(part, dtype):
    student, teacher = draw(6, 5, seed=0, dtype=dtype), draw(6, 8, seed=1, dtype=dtype)
    student[3] = student[1]
    _, grad = gradient(part, student, teacher)
    assert grad.abs().max() < 10  # a direction between equal samples would have a gradient of 10¹²
    teacher[4] = teacher[0]
    gradient(part, student, teacher)


def test_duplicates_count_as_the_root_of_eps_in_the_mean():
    """Two samples at 0, one at 1: distances 10⁻⁶, 1 and 1."""
    points = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    d = relative_distances(points)
    assert d[0, 2].item() == pytest.approx(3 / (2 + 1e-6), rel=1e-9)
    assert d[0, 1].item() == pytest.approx(3e-6 / (2 + 1e-6), rel=1e-6)


def test_eps_is_the_lower_bound():
    points = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    assert relative_distances(points, eps=0.25)[0, 1].item() == pytest.approx(0.5 * 3 / 2.5)
    assert relative_distances(points, squared=True, eps=0.25)[0, 1].item() == pytest.approx(0.25 * 3 / 2.25)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_student_of_equal_samples(part, value):
    """Such as one whose features are all zero."""
    loss, grad = gradient(part, torch.full((6, 5), value), draw(6, 8, seed=1))
    assert loss > 0
    assert grad.abs().max() < 10


def test_equal_samples_have_no_angle():
    assert (angle_cosines(torch.ones(3, 5), torch.ones(4, 5)) == 0).all()


def test_distances_far_from_the_origin_keep_their_digits():
    """‖a‖² + ‖b‖² − 2ab about the origin has lost all of them here."""
    points = draw(6, 5, seed=0)
    torch.testing.assert_close(relative_distances(points + 3000), relative_distances(points), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("option", "term"), [("distance_weight", "angle"), ("angle_weight", "distance")])
def test_part_with_factor_zero_is_not_computed(monkeypatch, option, term):
    def fail(*arguments, **keywords):
        raise AssertionError

    monkeypatch.setattr("distillctl_rkd.method." + {"distance": "angle_loss", "angle": "distance_loss"}[term], fail)
    setup = make_setup({"pooled": (3,)}, {"pooled": (5,)})
    method = RKD(options_of(SPEC, **{option: 0.0}), setup)
    student, teacher = {"pooled": draw(4, 3, seed=0)}, {"pooled": draw(4, 5, seed=1)}
    assert set(method.terms(make_batch(setup, 4), student, teacher, make_progress())) == {term}


def test_both_factors_zero_are_refused():
    with pytest.raises(RunError, match="`distance_weight` and `angle_weight`"):
        RKD(options_of(SPEC, distance_weight=0.0, angle_weight=0.0), make_setup({"pooled": (3,)}, {"pooled": (5,)}))


@pytest.mark.parametrize(
    ("factor", "option"), [("distance_weight", {"squared": True}), ("distance_weight", {"eps": 1e-6}), ("angle_weight", {"chunk": 4})]
)
def test_options_of_a_part_that_is_left_out_are_refused(factor, option):
    assert options_of(SPEC, **option)
    with pytest.raises(ValidationError, match=f"`{next(iter(option))}` has no effect with `{factor} = 0`"):
        options_of(SPEC, **option, **{factor: 0.0})


def test_defaults():
    options = options_of(SPEC)
    assert (options.distance_weight, options.angle_weight, options.eps, options.squared) == (25.0, 50.0, 1e-12, False)
    assert (options.student_stage, options.teacher_stage, options.chunk) == ("pooled", "pooled", 0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 0.0)


def test_wanted_features_are_the_chosen_stages():
    wants = RKD.wants(options_of(SPEC, student_stage="last", teacher_stage="layer4.1"))
    assert (wants.student, wants.teacher) == (("last",), ("layer4.1",))


@pytest.mark.parametrize("options", [{"eps": 0.0}, {"chunk": -1}, {"angle_weight": -1.0}, {"student_stage": "stages"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)
