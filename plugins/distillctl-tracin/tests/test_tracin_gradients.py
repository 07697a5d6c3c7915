"""Gradients of single images against one backward pass for each, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distillctl import ProfileError, RunError
from distillctl_tracin.gradients import LastLayer, SampleGradients, chosen_names, dot_products, gradients_of
from distillctl_tracin.sketch import Sketch

CLASSES = 7


class Net(nn.Module):
    """With batch normalisation, an activation in place, and a parameter that the loss does not reach."""

    def __init__(self, bias=True):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.idle = nn.Parameter(torch.ones(2))
        self.fc = nn.Linear(6, CLASSES, bias=bias)

    def forward(self, images):
        return self.fc(self.body(images))


def net(bias=True):
    torch.manual_seed(0)
    model = Net(bias)
    model(torch.randn(50, 3, 8, 8))  # running statistics
    return model.eval()


def images(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=draw), torch.randint(CLASSES, (count,), generator=draw)


def by_autograd(model, pixels, labels, names):
    """(B, n), float64: one backward pass for each image."""
    rows = []
    for image, label in zip(pixels, labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters() if name in names]
        rows.append(torch.cat([part.flatten() for part in parts]).double())
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_in_closed_form_equals_autograd(bias):
    model = net(bias)
    one, other = images(4, 1), images(6, 2)
    found = LastLayer(model, "fc")
    names = ["fc.weight", "fc.bias"]
    expected = by_autograd(model, *one, names) @ by_autograd(model, *other, names).T
    got = dot_products(found(*one), found(*other))
    assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert found.count == 6 * CLASSES + CLASSES * bias


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (["all"], {"body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "idle", "fc.weight", "fc.bias"}),
        (["body.1", "fc.bias"], {"body.1.weight", "body.1.bias", "fc.bias"}),
    ],
)
def test_gradients_of_chosen_layers_equal_autograd(layers, names):
    model = net()
    one, other = images(4, 1), images(6, 2)
    found = gradients_of(model, "fc", layers)
    expected = by_autograd(model, *one, names) @ by_autograd(model, *other, names).T
    got = dot_products(found(*one), found(*other))
    assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert found.count == sum(p.numel() for name, p in model.named_parameters() if name in names)


def test_nothing_of_the_model_changes():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for layers in (["last"], ["all"]):
        gradients_of(model, "fc", layers)(*images(3, 1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_sure_answer_still_has_a_gradient():
    """In float32 its probability is 1, and all sure images would be equal."""
    model = net()
    with torch.no_grad():
        model.fc.bias[0] += 40
    pixels, _ = images(2, 1)
    errors, _ = LastLayer(model, "fc")(pixels, torch.zeros(2, dtype=torch.int64))[0]
    assert bool((errors[:, 1:] > 0).all())
    assert errors[0, 1] != errors[1, 1]


def test_a_projection_of_all_layers_is_close_on_average():
    model, one, other = net(), images(2, 1), images(3, 2)
    exact = gradients_of(model, "fc", ["all"])
    expected = dot_products(exact(*one), exact(*other))
    drawn = [gradients_of(model, "fc", ["all"], Sketch(64, seed)) for seed in range(25)]
    got = torch.stack([dot_products(found(*one), found(*other)) for found in drawn]).mean(0)
    sizes = torch.outer(*(dot_products(exact(*x), exact(*x)).diag().sqrt() for x in (one, other)))
    # A single projection onto K numbers is off by |g|·|g'|·√(2/K) at most, their mean by 1/√25 of it.
    assert ((got - expected).abs() / sizes).max() < 4 * (2 / 64) ** 0.5 / 25**0.5
    assert drawn[0].held
    assert not exact.held


def test_blocks_are_as_large_as_memory_allows(monkeypatch):
    monkeypatch.setattr("distillctl_tracin.gradients.BUDGET", 4 * 3 * 42)
    assert SampleGradients(net(False), ["fc.weight"]).rows == 3
    monkeypatch.setattr("distillctl_tracin.gradients.BUDGET", 1)
    assert SampleGradients(net(False), ["fc.weight"]).rows == 1


def test_layers_that_are_not_there():
    with pytest.raises(ProfileError, match=r"no layer `body.9` with parameters") as caught:
        chosen_names(net(), ["fc", "body.9"])
    assert caught.value.problems[0].hint.endswith(("such as `body.0`", "such as `body.1`"))
    with pytest.raises(ProfileError, match=r"no layer `body.2`"):  # an activation
        chosen_names(net(), ["body.2"])


def test_models_without_a_last_linear_layer():
    with pytest.raises(RunError, match="its classifier `body` is Sequential"):
        LastLayer(net(), "body")
    with pytest.raises(RunError, match="its model declares no classifier"):
        LastLayer(net(), "")

    class Scaled(Net):
        def forward(self, images):
            return 2 * super().forward(images)

    with pytest.raises(RunError, match="does not return what its last linear layer gives"):
        LastLayer(Scaled().eval(), "fc")(*images(2, 1))


def test_a_model_that_torch_func_cannot_go_through():
    class Reads(Net):
        def forward(self, images):
            return super().forward(images) * float(images.sum())

    with pytest.raises(RunError, match=r"cannot be computed by `torch.func`"):
        gradients_of(Reads().eval(), "fc", ["all"])(*images(2, 1))
