"""What a README says of the terms of a reference's code, on real networks."""

from __future__ import annotations

import copy

import torch

from distillctl.models.features import Tapped
from distillctl.plugin.registry import Registry, load
from distillctl.testing import make_progress, make_setup, options_of


def test_a_wide_resnets_last_normalisation_can_rest_under_ab_as_in_repdistiller() -> None:
    """Untrained and in evaluation mode it changes nothing but for its ε, so that the map before it gives the reference's term."""
    torch.manual_seed(0)
    registry = Registry.load()
    spec, ab = registry.models.get("wrn_16_1"), registry.methods.get("ab")
    model = load(spec.implementation, spec.name)(spec.name, 10, load(spec.options, spec.name)())
    names = {"student_stages": ["stage1:pre", "stage2:pre", "stage3"], "teacher_stages": ["stage1:pre", "stage2:pre", "stage3:pre"]}
    student, teacher = Tapped(model, spec, names["student_stages"]), Tapped(copy.deepcopy(model), spec, names["teacher_stages"])
    sides = [one.side(one.probe((3, 8, 8)), one.spec.name) for one in (student, teacher)]
    setup = make_setup({}, {})
    method = load(ab.implementation, ab.name)(options_of(ab, **names), type(setup)(*sides, setup.num_classes, setup.labels))
    images = torch.randn(4, 3, 8, 8)
    seen, theirs = student.train()(images), teacher.eval()(images)
    fresh = copy.deepcopy(model.bn1).eval()
    fresh.reset_running_stats()
    rested = seen | {"stage3": fresh(seen["stage3"])}
    value = method.forward_phase("init", None, seen, theirs, make_progress())
    torch.testing.assert_close(value, method.forward_phase("init", None, rested, theirs, make_progress()), rtol=1e-4, atol=1e-4)
    value.backward()
    assert all(p.grad is None for p in model.bn1.parameters())
    assert all(p.grad is not None for p in model.block3.parameters())
