"""How the projection of `vkd` starts, that it stays orthogonal whatever trains it, and which features the method takes."""

import pytest
import torch
from torch import nn

from distillctl import RunError
from distillctl.testing import make_setup, options_of
from distillctl_vkd.method import VkD
from distillctl_vkd.modules import orthogonal_projection
from distillctl_vkd.plugin import SPEC

SIZES = pytest.mark.parametrize(("inputs", "outputs"), [(6, 10), (8, 8), (10, 6)])


def assert_orthogonal(projection):
    matrix = projection.weight.detach()
    gram = matrix.T @ matrix if len(matrix) >= matrix.shape[1] else matrix @ matrix.T
    torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)


@SIZES
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=5e-2),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5),
    ],
    ids=["sgd", "adamw"],
)
def test_it_stays_orthogonal_under_weight_decay(inputs, outputs, optimizer):
    """Torch's default for matrices that are not square becomes zero with the first step."""
    torch.manual_seed(0)
    projection = orthogonal_projection(inputs, outputs)
    start = projection.weight.detach().clone()
    assert_orthogonal(projection)
    steps = optimizer(projection.parameters())
    target = torch.randn(20, outputs)
    images = torch.randn(20, inputs)
    for _ in range(10):
        steps.zero_grad()
        nn.functional.smooth_l1_loss(projection(images), target).backward()
        steps.step()
        assert_orthogonal(projection)
    assert (projection.weight - start).abs().max() > 0.05


@SIZES
def test_it_learns_a_rotation(inputs, outputs):
    """Features that some orthogonal matrix gives are fitted: the parameters reach it."""
    torch.manual_seed(1)
    projection, other = orthogonal_projection(inputs, outputs), orthogonal_projection(inputs, outputs)
    images = torch.randn(200, inputs)
    with torch.no_grad():
        # Of two square matrices whose determinants differ in sign none can be turned into the other.
        matrix = other.weight.clone()
        if inputs == outputs and torch.linalg.det(matrix) * torch.linalg.det(projection.weight) < 0:
            matrix[0] *= -1
        target = images @ matrix.T
    adam = torch.optim.Adam(projection.parameters(), lr=0.05)
    for _ in range(300):
        adam.zero_grad()
        loss = nn.functional.smooth_l1_loss(projection(images), target)
        loss.backward()
        adam.step()
    assert loss < 0.05


def test_lengths_and_angles_are_kept():
    torch.manual_seed(0)
    projection, images = orthogonal_projection(6, 10), torch.randn(5, 6)
    turned = projection(images)
    torch.testing.assert_close(turned @ turned.T, images @ images.T, rtol=1e-4, atol=1e-5)


def test_starts_differ():
    assert (orthogonal_projection(6, 10).weight - orthogonal_projection(6, 10).weight).abs().max() > 0.1


def build(student=(6,), teacher=(8,), **options):
    return VkD(options_of(SPEC, **options), make_setup({"pooled": student}, {"pooled": teacher}))


def test_state_dict_is_the_projections():
    assert {name: tuple(value.shape) for name, value in build().state_dict().items()} == {
        "projection.parametrizations.weight.original": (8, 6),
        "projection.parametrizations.weight.0.base": (8, 8),
    }


@pytest.mark.parametrize("shape", [(6,), (9, 6), (6, 4, 4)])
def test_vectors_tokens_and_maps_are_taken(shape):
    method = build(shape, (8,))
    assert (method.projection.in_features, method.projection.out_features) == (6, 8)


@pytest.mark.parametrize(("student", "teacher", "side"), [((2, 9, 6, 6), (8,), "student"), ((6,), (2, 9, 8, 8), "teacher")])
def test_other_shapes_are_refused(student, teacher, side):
    message = rf"`vkd` needs a vector \(d,\), tokens .* but `pooled` of `tiny_{side}` has shape \(2, 9, "
    with pytest.raises(RunError, match=message):
        build(student, teacher)


def test_a_teacher_of_one_feature_is_refused():
    with pytest.raises(RunError, match="`pooled` of `tiny_teacher` has only one: always 0"):
        build((6,), (1, 4, 4))
    build((1,), (6,))


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stage, options.teacher_stage) == ("pooled", "pooled")
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 0.0)
    wants = VkD.wants(options_of(SPEC, student_stage="last", teacher_stage="fc:input"))
    assert (wants.student, wants.teacher) == (("last",), ("fc:input",))
