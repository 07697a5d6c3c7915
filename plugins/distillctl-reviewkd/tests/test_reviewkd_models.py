"""With real models, as an engine taps them."""

from __future__ import annotations

import pytest
import torch

from distillctl import ModelSpec, ProfileError, Setup
from distillctl.models.features import Tapped
from distillctl.plugin.registry import load
from distillctl.testing import TINY_CNN, TINY_VIT, TINY_WIDE, make_batch, make_progress, options_of
from distillctl_reviewkd.method import ReviewKD
from distillctl_reviewkd.plugin import SPEC

CLASSES = 5


def tap(spec: ModelSpec, names: tuple[str, ...]) -> Tapped:
    return Tapped(load(spec.implementation, spec.name)(spec.name, CLASSES, options_of(spec)), spec, names)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(TINY_CNN, TINY_WIDE), (TINY_VIT, TINY_WIDE), (TINY_CNN, TINY_VIT)], ids=lambda spec: spec.name
)
def test_stages_of_any_model(ours: ModelSpec, theirs: ModelSpec) -> None:
    torch.manual_seed(0)
    options = options_of(SPEC, teacher_stages=["stages"])
    wants = ReviewKD.wants(options)
    student, teacher = tap(ours, wants.student), tap(theirs, wants.teacher)
    sides = [tapped.side(tapped.probe((3, 8, 8)), name) for tapped, name in ((student, "student"), (teacher, "teacher"))]
    setup = Setup(*sides, CLASSES, torch.arange(20) % CLASSES)
    method, batch = ReviewKD(options, setup), make_batch(setup, 6)

    loss = method.terms(batch, student(batch.images), teacher(batch.images), make_progress())[""]
    loss.backward()

    classifier = ours.classifier + "."
    reached = [p.grad for name, p in student.model.named_parameters() if not name.startswith(classifier)]
    assert all(g is not None and g.isfinite().all() for g in (*reached, *(p.grad for p in method.parameters())))
    assert all(p.grad is None for p in teacher.model.parameters())


def test_teacher_without_pre_activations_is_refused_with_a_way_out() -> None:
    with pytest.raises(ProfileError, match="`tiny_vit` declares no pre-activation `stage1:pre`") as refusal:
        tap(TINY_VIT, ReviewKD.wants(options_of(SPEC)).teacher)
    assert "use `stage1`" in str(refusal.value)
