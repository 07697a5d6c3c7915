"""The phase, and that nothing comes after it."""

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.engine.objective import Objective, Weighted
from distillctl.models.features import Tapped
from distillctl.testing import TINY_CNN, TINY_WIDE, make_batch, make_features, make_progress, make_setup, make_task, options_of
from distillctl.testing.tiny_models import build_tiny
from distillctl_ab.method import AB
from distillctl_ab.plugin import SPEC

STUDENT = {"stage1:pre": (3, 4, 4), "stage2:pre": (5, 2, 2)}
TEACHER = {"stage1:pre": (3, 4, 4), "stage2:pre": (4, 2, 2)}


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stages, options.teacher_stages) == (["stages:pre"], ["stages:pre"])
    assert (options.margin, options.init_epochs, options.init_lr) == (1.0, 30, None)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs, SPEC.presets) == (1.0, 1.0, 0.0, ())
    wants = AB.wants(options)
    assert (wants.student, wants.teacher, wants.teacher_norm) == (("stages:pre",), ("stages:pre",), "running")


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"init_epochs": 0}, {"init_lr": 0.0}, {"teacher_stages": []}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)


@pytest.mark.parametrize("options", [{}, {"init_epochs": 2, "init_lr": 0.01}])
def test_the_phase_trains_body_and_connectors(options):
    (phase,) = AB(options_of(SPEC, **options), make_setup(STUDENT, TEACHER)).phases()
    assert (phase.name, phase.student, phase.modules) == ("init", True, ("connectors",))
    assert (phase.epochs, phase.lr) == (options.get("init_epochs", 30), options.get("init_lr"))


def test_d10_the_weight_counts_in_the_phase_and_nothing_comes_after_it():
    """RepDistiller reads its weight in the second part, where its term is 0: no value of it changes anything."""
    setup = make_setup(STUDENT, TEACHER)
    method = AB(options_of(SPEC), setup)
    assert method.phases()[0].weighted
    assert not method.in_main
    student, teacher = make_features(setup.student, 3), make_features(setup.teacher, 3, 1)
    assert method.terms(make_batch(setup, 3), student, teacher, make_progress()) == {}
    method.enter(None)
    assert not any(p.requires_grad for p in method.parameters()), "the connectors have done their work"
    assert method.parameter_groups() == []


def tapped(spec):
    return Tapped(build_tiny(spec.name, 10), spec, ["stages:pre"])


def test_classifier_gets_no_gradient_in_the_phase():
    torch.manual_seed(0)
    student, teacher = tapped(TINY_CNN), tapped(TINY_WIDE)
    setup = make_setup({}, {})
    sides = [one.side(one.probe((3, 8, 8)), one.spec.name) for one in (student, teacher)]
    method = AB(options_of(SPEC), type(setup)(*sides, setup.num_classes, setup.labels))
    objective = Objective(make_task(), student, [Weighted("ab", method, weight=2.0)], task_weight=1.0)
    objective.enter("ab", method.phases()[0])
    batch = make_batch(setup, 4)
    with torch.no_grad():
        theirs = teacher.eval()(batch.images)
    losses = objective.losses(batch, objective.observe(batch), {"running": theirs}, make_progress())
    (term,) = losses.terms.values()
    torch.testing.assert_close(losses.distillation, 2 * term)
    assert losses.task == 0
    losses.distillation.backward()
    classifier = student.model.fc
    assert all(p.grad is None for p in classifier.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.model.stage1.parameters())
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_vectors_are_refused(side):
    shapes = {"stage2:pre": (5, 2, 2), "pooled": (5,)}
    stages = {"student_stages": ["stage2:pre"], "teacher_stages": ["stage2:pre"], f"{side}_stages": ["pooled"]}
    with pytest.raises(RunError, match=f"`ab` needs a feature map.*`pooled` of `tiny_{side}`"):
        AB(options_of(SPEC, **stages), make_setup(shapes, shapes))


def test_unequal_lists_are_refused():
    options = options_of(SPEC, student_stages=["stage1:pre"], teacher_stages=["stage1:pre", "stage2:pre"])
    with pytest.raises(RunError, match="`ab` pairs 1 stages of `tiny_student`"):
        AB(options, make_setup(STUDENT, TEACHER))


def test_stages_are_paired_from_the_deepest():
    deep = {"stage1:pre": (2, 8, 8), "stage2:pre": (3, 4, 4), "stage3:pre": (5, 2, 2)}
    assert AB(options_of(SPEC), make_setup(STUDENT, deep)).pairs == (("stage1:pre", "stage2:pre"), ("stage2:pre", "stage3:pre"))
