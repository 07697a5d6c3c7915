"""Every option reaches torch's optimizer, and what shall not decay does not."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from distillctl.builtin.optimizer_builders import build_adamw, build_sgd
from distillctl.builtin.optimizer_options import AdamWOptions, SGDOptions


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_sgd() -> None:
    model = net()
    (group,) = build_sgd(
        [{"params": [*model.parameters()]}], SGDOptions(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01)
    ).param_groups
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.1, 0.8, True, 0.01)
    assert not group["fused"]


def test_sgd_is_the_recipe_of_the_benchmarks_where_nothing_is_said() -> None:
    (group,) = build_sgd([{"params": [*net().parameters()]}], SGDOptions()).param_groups
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.05, 0.9, False, 5e-4)


def test_adamw() -> None:
    options = AdamWOptions(lr=0.002, beta1=0.7, beta2=0.99, eps=1e-6, weight_decay=0.2, decay="all")
    (group,) = build_adamw([{"params": [*net().parameters()]}], options).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.002, (0.7, 0.99), 1e-6, 0.2)


@pytest.mark.parametrize(("build", "options"), [(build_sgd, SGDOptions), (build_adamw, AdamWOptions)])
def test_biases_and_norms_do_not_decay_under_weights(build, options) -> None:
    model = net()
    groups = build([{"params": [*model.parameters()], "lr_scale": 0.5}], options(weight_decay=0.1, decay="weights")).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0.0, 0.0, 0.0]
    assert all(group["lr_scale"] == 0.5 for group in groups)
    (whole,) = build([{"params": [*model.parameters()]}], options(weight_decay=0.1, decay="all")).param_groups
    assert whole["weight_decay"] == 0.1


def test_a_group_with_a_decay_of_its_own_keeps_it() -> None:
    model = net()
    groups = build_sgd([{"params": [*model.parameters()], "weight_decay": 0.0}], SGDOptions(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0]


@pytest.mark.parametrize(("build", "options"), [(build_sgd, SGDOptions), (build_adamw, AdamWOptions)])
@pytest.mark.parametrize(("own", "others"), [("all", "weights"), ("weights", "all")])
def test_a_group_may_say_what_decays_in_it(build, options, own, others) -> None:
    first, second = net(), net()
    groups = [{"params": [*first.parameters()]}, {"params": [*second.parameters()], "decay": own}]
    made = build(groups, options(weight_decay=0.1, decay=others)).param_groups
    decays = {id(p): group["weight_decay"] for group in made for p in group["params"]}
    expected = {"all": [0.1] * 4, "weights": [0.1, 0.0, 0.0, 0.0]}
    assert [[decays[id(p)] for p in model.parameters()] for model in (first, second)] == [expected[others], expected[own]]
    assert not any("decay" in group for group in made)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers are built as on CUDA; the fused kernels are there on a CPU as well."""
    monkeypatch.setattr("distillctl.builtin.optimizer_builders._on_cuda", lambda groups: True)


def fill_gradients(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_momenta_that_begin_at_zero_change_no_bit_of_fused_sgd(momentum: float, nesterov: bool) -> None:
    options = SGDOptions(lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=0.01)
    ours, torchs = net(), net()
    made = build_sgd([{"params": [*ours.parameters()]}], options)
    assert sum(bool(made.state[p]) for p in ours.parameters()) == (4 if momentum else 0)
    plain = torch.optim.SGD(torchs.parameters(), lr=0.1, momentum=momentum, nesterov=options.nesterov, weight_decay=0.01, fused=True)
    for seed in range(3):
        for model, optimizer in ((ours, made), (torchs, plain)):
            fill_gradients(model, seed)
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), torchs.parameters(), strict=True))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(("build", "options"), [(build_sgd, SGDOptions), (build_adamw, AdamWOptions)])
def test_an_overflow_in_the_first_step_leaves_no_trace(build, options, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a scaler of gradients calls a fused optimizer: with the flag that something was not finite."""
    monkeypatch.setattr(torch, "empty_like", lambda tensor: torch.full_like(tensor, 1e27))  # what memory may hold
    overflown, plain = net(), net()
    with_flag, without = (build([{"params": [*model.parameters()]}], options()) for model in (overflown, plain))
    with_flag.grad_scale, with_flag.found_inf = torch.ones(()), torch.ones(())
    fill_gradients(overflown, 0)
    with_flag.step()
    with_flag.found_inf = torch.zeros(())
    for model, optimizer in ((overflown, with_flag), (plain, without)):
        fill_gradients(model, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(overflown.parameters(), plain.parameters(), strict=True))


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("continued", [False, True])
def test_a_first_gradient_may_come_late_to_fused_sgd(continued: bool) -> None:
    """Also after the state of a run whose optimizer was not fused, in which such a parameter has no momentum."""
    model, other = net(), net()
    optimizer = build_sgd([{"params": [*model.parameters()]}], SGDOptions())
    plain = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for one in (model, other):
        fill_gradients(one, 0)
        one[0].weight.grad = None
    for one in (optimizer, plain):
        one.step()
    if continued:
        optimizer.load_state_dict({**deepcopy(plain.state_dict()), "param_groups": optimizer.state_dict()["param_groups"]})
    for one, stepper in ((model, optimizer), (other, plain)):
        fill_gradients(one, 1)
        stepper.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_plain_sgd_makes_its_momenta_itself() -> None:
    assert not build_sgd([{"params": [*net().parameters()]}], SGDOptions()).state
