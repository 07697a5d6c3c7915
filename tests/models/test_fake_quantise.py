"""Layers that compute as int8 will have them: against plain loops, and without a trace in the names of the weights."""

import copy
import math

import pytest
import torch
from torch import nn

from distillctl.models.fake_quantise import plain_state, quantise, ranges_of, restore
from distillctl.testing.tiny_models import TinyCNN, TinyViT

RANGE = [-0.7, 2.1]


def by_hand(values, low, high):
    """A grid of 256 steps with 0 in it."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return [min(max(round(v / scale) + zero, 0), 255) * scale - zero * scale for v in values]


def weights_by_hand(weight):
    rows = []
    for row in weight.flatten(1).tolist():
        scale = max(abs(v) for v in row) / 127
        rows.append([round(v / scale) * scale for v in row])
    return torch.tensor(rows).view_as(weight)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4)).eval()


def test_a_layer_by_hand(linear):
    values = torch.randn(5, 6) * 2
    wanted_weight = weights_by_hand(linear[0].weight.detach())
    bias = linear[0].bias.detach().clone()
    quantise(linear, {"0": RANGE})
    assert torch.allclose(linear[0].weight, wanted_weight, atol=1e-6)
    grid = torch.tensor([by_hand(row, *RANGE) for row in values.tolist()])
    assert (grid - values).abs().max() > 0.1  # some lie outside
    assert torch.allclose(linear(values), grid @ wanted_weight.T + bias, atol=1e-5)


def test_zero_stays_zero(linear):
    quantise(linear, {"0": [-0.33, 1.0]})
    assert torch.equal(linear(torch.zeros(1, 6))[0], linear[0].bias)


def test_a_scale_for_each_channel_makes_folding_harmless():
    torch.manual_seed(1)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    factor = torch.tensor([0.01, 5.0, -3.0, 1.0])
    folded = copy.deepcopy(layer)
    folded[0].weight.data *= factor.view(-1, 1, 1, 1)
    quantise(layer), quantise(folded)
    assert torch.allclose(folded[0].weight, layer[0].weight * factor.view(-1, 1, 1, 1), rtol=1e-5, atol=1e-7)


def test_nothing_changes_before_a_range_is_seen(linear):
    values = torch.randn(5, 6)
    other = copy.deepcopy(linear)
    quantise(other)
    weight = weights_by_hand(linear[0].weight.detach())
    assert torch.allclose(other(values), values @ weight.T + linear[0].bias, atol=1e-5)
    assert ranges_of(other) == {}


def test_ranges_follow_what_is_seen_in_training_alone(linear):
    quantise(linear)
    linear(torch.full((2, 6), 9.0))  # evaluation sees nothing
    linear.train()
    with torch.no_grad():
        linear(torch.full((2, 6), 9.0))
    assert ranges_of(linear) == {}
    linear(torch.tensor([[-1.0, 0, 0, 0, 0, 3]]))
    assert ranges_of(linear) == {"0": [-1.0, 3.0]}
    linear(torch.tensor([[1.0, 2, 2, 2, 2, 5]]))  # 0 always lies within
    low, high = ranges_of(linear)["0"]
    assert math.isclose(low, -0.95, rel_tol=1e-6)
    assert math.isclose(high, 3.1, rel_tol=1e-6)


def test_gradients_pass_where_nothing_was_cut_off(linear):
    quantise(linear, {"0": RANGE})
    values = torch.tensor([[-3.0, -0.5, 0.0, 1.0, 2.0, 3.0]], requires_grad=True)
    linear(values).sum().backward()
    inside = torch.tensor([False, True, True, True, True, False])
    assert torch.equal(values.grad[0] != 0, inside)
    assert torch.allclose(values.grad[0], linear[0].weight.sum(0) * inside)
    assert linear[0]._parameters["weight"].grad.abs().sum() > 0


@pytest.mark.parametrize("made", [TinyCNN, TinyViT])
def test_names_and_values_stay(made):
    torch.manual_seed(0)
    model = made(3, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantise(model)
    quantise(model)  # once is enough
    state = plain_state(model)
    assert list(state) == list(before)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in made(3, 4).named_parameters()]
    again = made(3, 4)
    quantise(again)
    again.load_state_dict(model.state_dict())
    copy.deepcopy(again).load_state_dict(model.state_dict())


def test_restored(tmp_path):
    torch.manual_seed(0)
    model = TinyCNN(3, 4).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = model(images)
        quantise(model, {"fc": [0.0, 0.5]})
        assert not torch.equal(model(images), wanted)
        restore(model)
        assert torch.equal(model(images), wanted)
    assert type(model.fc) is nn.Linear
    assert list(model.state_dict()) == list(TinyCNN(3, 4).state_dict())


def test_other_precisions(linear):
    quantise(linear, {"0": RANGE})
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(torch.randn(2, 6).bfloat16())
    assert found.dtype == torch.bfloat16
