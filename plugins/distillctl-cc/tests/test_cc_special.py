"""Batches of one, embeddings of zeros, refusals and options."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from distillctl import RunError
from distillctl.testing import make_setup, options_of
from distillctl_cc.losses import kernel_loss, kernel_matrix, neighbour_loss
from distillctl_cc.method import CC
from distillctl_cc.plugin import SPEC


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss_of", [neighbour_loss, kernel_loss, lambda s, t: kernel_loss(s, t, squared=False)])
def test_batch_of_one_is_zero_with_a_graph(loss_of):
    """The peers' is NaN: a mean over no pair of neighbours."""
    student, teacher = draw(1, 5, seed=0).requires_grad_(), draw(1, 5, seed=1).requires_grad_()
    loss = loss_of(student, teacher)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()
    assert (teacher.grad == 0).all()


def test_embedding_of_zeros_stays_zero_with_a_moderate_gradient():
    student = draw(5, 4, seed=0)
    student[2] = 0
    student.requires_grad_()
    kernel_loss(student, draw(5, 4, seed=1)).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10
    assert torch.allclose(kernel_matrix(student)[2], torch.tensor(-0.8).exp())


def test_norm_of_equal_kernels_has_a_finite_gradient():
    """The root has none at 0."""
    student = draw(5, 4, seed=0).requires_grad_()
    loss = kernel_loss(student, student.detach(), squared=False)
    loss.backward()
    assert loss < 1e-6
    assert student.grad.isfinite().all()


def test_unequal_features_without_embeddings_are_refused():
    setup = make_setup({"pooled": (3,)}, {"pooled": (5, 2, 2)})
    with pytest.raises(
        RunError,
        match=r"`cc` cannot subtract `pooled` of `tiny_teacher` of shape \(5, 2, 2\) from `pooled` of `tiny_student` of shape \(3,\)",
    ):
        CC(options_of(SPEC, feat_dim=0), setup)
    CC(options_of(SPEC, variant="kernel"), setup)
    CC(options_of(SPEC, feat_dim=4), setup)
    CC(options_of(SPEC, feat_dim=0), make_setup({"pooled": (20,)}, {"pooled": (5, 2, 2)}))


def test_embeddings_have_the_shapes_of_the_features():
    method = CC(options_of(SPEC, student_stage="last"), make_setup({"last": (3, 2, 2)}, {"pooled": (5,)}))
    shapes = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    assert shapes == {
        "embed_student.weight": (128, 12),
        "embed_student.bias": (128,),
        "embed_teacher.weight": (128, 5),
        "embed_teacher.bias": (128,),
    }


def test_defaults():
    options = options_of(SPEC)
    assert (options.variant, options.feat_dim, options.gamma, options.order, options.squared) == ("repdistiller", None, 0.4, 2, True)
    assert (options.student_stage, options.teacher_stage) == ("pooled", "pooled")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (0.02, 1.0, 0.0)


def test_embeddings_belong_to_the_variant():
    """Trained embeddings of both sides would give the kernel its minimum as the same constant."""
    lengths = [options_of(SPEC, **stated).embedding for stated in ({}, {"feat_dim": 7}, {"feat_dim": 0}, {"variant": "kernel"})]
    assert lengths == [128, 7, 0, 0]
    setup = make_setup({"pooled": (3,)}, {"pooled": (5,)})
    assert not list(CC(options_of(SPEC, variant="kernel", feat_dim=0), setup).parameters())
    with pytest.raises(ValidationError, match="`kernel` takes no `feat_dim`"):
        options_of(SPEC, variant="kernel", feat_dim=1)


@pytest.mark.parametrize("option", [{"gamma": 0.5}, {"order": 3}, {"squared": False}])
def test_options_of_the_kernel_are_refused_elsewhere(option):
    assert options_of(SPEC, variant="kernel", **option)
    with pytest.raises(ValidationError, match=f"`{next(iter(option))}` belongs to the variant `kernel`"):
        options_of(SPEC, **option)


def test_each_variant_has_its_weight():
    (preset,) = SPEC.presets
    assert (dict(preset.when), dict(preset.values)) == ({"variant": "kernel"}, {"weight": 100.0})


def test_maps_of_another_size_in_each_batch_are_not_embedded():
    maps, vectors = (dict.fromkeys(("pooled", "layer"), (4, *size)) for size in ((3, 3), ()))
    for shapes, options in ((maps, {"variant": "kernel"}), (vectors, {})):
        assert CC(options_of(SPEC, **options), replace(make_setup(shapes, shapes), unequal=True))
    assert CC(options_of(SPEC), make_setup(maps, maps))
    with pytest.raises(RunError, match="`cc` embeds every value of a map"):
        CC(options_of(SPEC), replace(make_setup(maps, maps), unequal=True))


def test_wanted_features_are_the_chosen_stages():
    wants = CC.wants(options_of(SPEC, student_stage="last", teacher_stage="layer4.1"))
    assert (wants.student, wants.teacher) == (("last",), ("layer4.1",))


@pytest.mark.parametrize("options", [{"variant": "gauss"}, {"gamma": 0.0}, {"order": 0}, {"feat_dim": -1}, {"student_stage": "stages"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)
