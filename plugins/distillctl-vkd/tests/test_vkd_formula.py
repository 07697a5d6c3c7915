"""`vkd` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_vkd.losses import as_vectors, vkd_loss
from distillctl_vkd.method import VkD
from distillctl_vkd.plugin import SPEC

B = 4


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(student, teacher):
    torch.manual_seed(0)
    return VkD(options_of(SPEC), make_setup({"pooled": (student,)}, {"pooled": (teacher,)})).double()


def loss_of(method, student, teacher):
    return method.terms(make_batch(make_setup({}, {}), len(student)), {"pooled": student}, {"pooled": teacher}, make_progress())[""]


def by_loops(student, teacher, matrix):
    """matrix [d_t][d_s]."""
    total = count = 0.0
    for s, t in zip(student, teacher, strict=True):
        mean = sum(t) / len(t)
        variance = sum((v - mean) ** 2 for v in t) / len(t)
        for row, v in zip(matrix, t, strict=True):
            distance = abs(sum(p * x for p, x in zip(row, s, strict=True)) - (v - mean) / math.sqrt(variance + 1e-5))
            total += distance**2 / 2 if distance < 1 else distance - 0.5
            count += 1
    return total / count


@pytest.mark.parametrize(("student", "teacher"), [(5, 8), (6, 6), (9, 4)])
def test_formula(student, teacher):
    """Features of a few units, so that some differences are within 1 and some beyond."""
    method = build(student, teacher)
    ours, theirs = 2 * draw(B, student), 7 * draw(B, teacher, seed=1) + 3
    value = loss_of(method, ours, theirs)
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert value.item() == pytest.approx(by_loops(ours.tolist(), theirs.tolist(), method.projection.weight.tolist()), rel=1e-10)


def test_value_by_hand():
    """LN(1, 3) = (−1, 1): of the differences ½ and 2 come ⅛ and 3/2."""
    projected, teacher = torch.tensor([[-0.5, 3.0]], dtype=torch.float64), torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert vkd_loss(projected, teacher).item() == pytest.approx((1 / 8 + 3 / 2) / 2, rel=1e-4)


def test_zero_where_the_turned_feature_is_the_normalised_one():
    method = build(6, 6)
    teacher = draw(B, 6, seed=1)
    target = torch.nn.functional.layer_norm(teacher, (6,))
    assert loss_of(method, target @ method.projection.weight, teacher).item() == pytest.approx(0, abs=1e-12)  # P starts in float32


@pytest.mark.parametrize("factor", [0.5, 3.0, 1e4])
def test_affine_maps_of_a_sample_of_the_teacher_do_not_matter(factor):
    projected, teacher = draw(B, 6), draw(B, 6, seed=1)
    scale = factor * torch.tensor([[1.0], [2.0], [1.5], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(vkd_loss(projected, scale * teacher - 5), vkd_loss(projected, teacher), rtol=1e-3, atol=0)
    assert not torch.isclose(vkd_loss(projected, -teacher), vkd_loss(projected, teacher), rtol=1e-2)


def test_size_of_the_students_feature_does_matter():
    method, student, teacher = build(6, 8), draw(B, 6), draw(B, 8, seed=1)
    assert loss_of(method, 3 * student, teacher) > 1.2 * loss_of(method, student, teacher)


def test_a_sample_of_equal_features_is_a_target_of_zeros():
    projected = draw(B, 6).float().requires_grad_()
    loss = vkd_loss(projected, torch.full((B, 6), 7.0))
    loss.backward()
    assert loss.item() == pytest.approx(torch.nn.functional.smooth_l1_loss(projected, torch.zeros(B, 6)).item())
    assert projected.grad.isfinite().all()


def test_maps_and_tokens_are_averaged_over_their_positions():
    image_map, tokens, vectors = draw(B, 5, 3, 2), draw(B, 6, 5), draw(B, 5)
    torch.testing.assert_close(as_vectors(image_map), image_map.flatten(2).mean(2))
    torch.testing.assert_close(as_vectors(tokens), torch.stack([tokens[:, i] for i in range(6)]).mean(0))
    assert as_vectors(vectors) is vectors
