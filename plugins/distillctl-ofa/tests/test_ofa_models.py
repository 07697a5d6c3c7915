"""With real models of both kinds, as an engine taps them."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from distillctl import ModelSpec, Setup
from distillctl.models.features import Tapped
from distillctl.plugin.registry import load
from distillctl.testing import TINY_CNN, TINY_VIT, make_batch, make_progress, options_of
from distillctl_ofa.method import OFA
from distillctl_ofa.plugin import SPEC

CLASSES = 5


def tap(spec: ModelSpec, names: tuple[str, ...]) -> Tapped:
    return Tapped(load(spec.implementation, spec.name)(spec.name, CLASSES, options_of(spec)), spec, names)


@pytest.mark.parametrize(("ours", "theirs"), [*product((TINY_CNN, TINY_VIT), repeat=2)], ids=lambda spec: spec.name)
def test_every_kind_of_pair(ours: ModelSpec, theirs: ModelSpec) -> None:
    torch.manual_seed(0)
    options = options_of(SPEC, eps=1.5)
    wants = OFA.wants(options)
    student, teacher = tap(ours, wants.student), tap(theirs, wants.teacher)
    sides = [tapped.side(tapped.probe((3, 8, 8)), name) for tapped, name in ((student, "student"), (teacher, "teacher"))]
    setup = Setup(*sides, CLASSES, torch.arange(20) % CLASSES)
    method, batch = OFA(options, setup), make_batch(setup, 6)
    assert len(method.branches) == len(sides[0].stages) > 1

    terms = method.terms(batch, student(batch.images), teacher(batch.images), make_progress())
    torch.stack(list(terms.values())).sum().backward()

    gradients = [p.grad for p in (*student.model.parameters(), *method.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert all(p.grad is None for p in teacher.model.parameters())
