"""`unit-scale`: what the inner method is given, again as plain loops; what is measured once, and of which images."""

import math

import pytest
import torch

from distillctl import Method, RunError, Wants
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_unitscale.method import UnitScale
from distillctl_unitscale.plugin import SPEC

SHAPES = {"p3": (4, 6, 6), "p4": (4, 3, 3), "pooled": (4,)}
SETUP = make_setup(SHAPES, SHAPES, num_classes=5)
BATCH = make_batch(SETUP, 3)


class Seen(Method):
    """Keeps what it was given."""

    @classmethod
    def wants(cls, options):
        return Wants(tuple(SHAPES), tuple(SHAPES))

    def forward(self, batch, student, teacher, progress):
        self.given = teacher
        return student["p3"].mean()


def wrapped():
    return UnitScale(options_of(SPEC), SETUP, Seen(None, SETUP)).train()


def maps(seed, size=1.0):
    draw = torch.Generator().manual_seed(seed)
    return {name: size * torch.randn(3, *shape, generator=draw, dtype=torch.float64) for name, shape in SHAPES.items()}


def rms_by_loops(value):
    numbers = [v * v for image in value for channel in image for row in channel for v in row.tolist()]
    return math.sqrt(sum(numbers) / len(numbers))


def test_maps_are_divided_by_the_root_mean_square_of_the_first_batch():
    method, first, second = wrapped(), maps(0, 7.0), maps(1, 3.0)
    for seen in (first, second):
        method.terms(BATCH, maps(2), seen, make_progress())
        for name in ("p3", "p4"):
            torch.testing.assert_close(method.inner.given[name], seen[name] / rms_by_loops(first[name]), rtol=1e-6, atol=0)
        assert torch.equal(method.inner.given["pooled"], seen["pooled"])
    assert {round(value, 4) for value in method.rms.tolist()} == {round(rms_by_loops(first[name]), 4) for name in ("p3", "p4")}


def test_a_method_that_goes_on_keeps_the_scale():
    before, after = wrapped(), wrapped()
    before.terms(BATCH, maps(2), maps(0, 7.0), make_progress())
    after.load_state_dict(before.state_dict())
    after.terms(BATCH, maps(2), maps(1, 3.0), make_progress())
    assert torch.equal(before.rms, after.rms)


def test_what_is_looked_at_in_evaluation_is_not_kept():
    method = wrapped().eval()
    method.terms(BATCH, maps(2), maps(0, 7.0), make_progress())
    assert not method.rms.any()


def test_a_map_of_zeros_stays_one():
    method, seen = wrapped(), maps(0)
    seen["p4"] = torch.zeros_like(seen["p4"])
    method.terms(BATCH, maps(2), seen, make_progress())
    assert not method.inner.given["p4"].any()


def test_a_method_without_maps_of_the_teacher_is_refused():
    setup = make_setup({"pooled": (4,)}, {"pooled": (4,)}, num_classes=5)
    with pytest.raises(RunError, match="`unit-scale` scales the teacher's maps, and `Seen` reads none"):
        UnitScale(options_of(SPEC), setup, Seen(None, setup))
