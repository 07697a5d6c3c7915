"""The formula of METHODS as plain loops in float64, and what must hold of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import distillctl_simkd.method
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl.testing.cases import with_head
from distillctl_simkd.losses import projection_loss
from distillctl_simkd.method import SimKD
from distillctl_simkd.plugin import SPEC

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(student, teacher, **options):
    setup = make_setup({"final": student, "pooled": student[:1]}, {"final": teacher, "pooled": teacher[:1]})
    torch.manual_seed(0)
    method = SimKD(options_of(SPEC, **options), setup).double()
    method.enter(None)
    return method, setup


def loss_by_loops(projected, teacher):
    """The teacher is averaged over windows ⌊i·H'/H⌋ … ⌈(i+1)·H'/H⌉, which are single values where the sizes agree."""
    height, width = projected.shape[2:]
    total = count = 0

    def window(index, parts, length):
        return range(index * length // parts, -(-(index + 1) * length // parts))

    for ours, theirs in zip(projected.tolist(), teacher.tolist(), strict=True):
        for p, t in zip(ours, theirs, strict=True):
            for i in range(height):
                for j in range(width):
                    values = [t[y][x] for y in window(i, height, len(t)) for x in window(j, width, len(t[0]))]
                    total += (p[i][j] - sum(values) / len(values)) ** 2
                    count += 1
    return torch.tensor(total / count, dtype=torch.float64)


@pytest.mark.parametrize("size", [(3, 2), (4, 4), (5, 3), (1, 1)])
def test_loss_is_the_formula(size):
    projected, teacher = draw(3, 4, *size, seed=1), draw(3, 4, 5, 4, seed=2)
    torch.testing.assert_close(projection_loss(projected, teacher), loss_by_loops(projected, teacher), **EXACT)


def test_hand_computed():
    projected, teacher = torch.tensor([[[[1.0]], [[2.0]]]]), torch.tensor([[[[0.0, 2.0]], [[5.0, 5.0]]]])
    assert projection_loss(projected, teacher) == 4.5  # the averages are 1 and 5


def project_by_hand(state, maps):
    """Three convolutions as matrix products, batch normalisation by the batch's statistics, and ReLU; own arithmetic."""
    for layer in (0, 3, 6):
        weight, name = state[f"layers.projector.{layer}.weight"], f"layers.projector.{layer + 1}"
        size = weight.shape[2]
        values = torch.einsum("oc,bcp->bop", weight.flatten(1), F.unfold(maps, size, padding=size // 2))
        mean = values.mean((0, 2), keepdim=True)
        values = (values - mean) / ((values - mean).square().mean((0, 2), keepdim=True) + 1e-5).sqrt()
        values = values * state[f"{name}.weight"][:, None] + state[f"{name}.bias"][:, None]
        maps = torch.where(values > 0, values, 0.0).unflatten(2, maps.shape[2:])
    return maps


@pytest.mark.parametrize(
    ("student", "teacher", "seen"),
    [((5, 2, 3), (6, 2, 3), (2, 3)), ((5, 4, 6), (6, 2, 3), (2, 3)), ((5, 2, 3), (6, 4, 6), (2, 3)), ((5, 4, 2), (6, 2, 4), (2, 2))],
)
def test_term_and_logits_with_the_projector(student, teacher, seen):
    """A larger student is averaged before the projector, a larger teacher in the loss."""
    method, setup = build(student, teacher)
    ours, theirs = draw(4, *student, seed=1), draw(4, *teacher, seed=2)
    value, features = ours, {}
    for name, layer in method.head().layers.named_children():
        value = features[f"head.{name}"] = layer(value)
    logits = value
    small = ours
    for dim, parts in ((2, seen[0]), (3, seen[1])):
        small = small.unflatten(dim, (parts, -1)).mean(dim + 1)
    projected = project_by_hand(method.state_dict(), small)
    value = method(make_batch(setup, 4), features, {"final": theirs}, make_progress())
    torch.testing.assert_close(features["head.projector"], projected, **EXACT)
    torch.testing.assert_close(value, loss_by_loops(projected, theirs), **EXACT)
    linear = setup.teacher.classifier.double()
    torch.testing.assert_close(logits, projected.mean((2, 3)) @ linear.weight.T + linear.bias, **EXACT)


def test_identity_projector_and_equal_maps_give_the_teachers_logits(monkeypatch):
    monkeypatch.setattr(distillctl_simkd.method, "projector", lambda *_: nn.Identity())
    method, setup = build((6, 3, 2), (6, 3, 2))
    maps = draw(4, 6, 3, 2).float()
    features = with_head(method.float(), {"final": maps})
    teacher_logits = setup.teacher.model(maps)  # pools and classifies
    assert method(make_batch(setup, 4), features, {"final": maps}, make_progress()) == 0
    torch.testing.assert_close(features["logits"], teacher_logits, rtol=1e-5, atol=1e-6)
    other = with_head(method, {"final": maps + 1})
    assert not torch.allclose(other["logits"], teacher_logits, atol=1e-2)
