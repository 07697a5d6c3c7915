"""Every option reaches torch's optimizer, and what shall not decay does not."""

from __future__ import annotations

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
