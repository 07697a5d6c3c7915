"""Names under which people's files have the tensors of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from distillctl.weights.renaming import renamings


def network(blocks: int = 2) -> dict[str, Tensor]:
    body = [nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(blocks)]
    model = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3), "layer1": nn.Sequential(*body), "fc": nn.Linear(4, 7)})
    return dict(model.state_dict())


TARGET = network()
REAL = [name for name in TARGET if not name.endswith("num_batches_tracked")]


def told(change: Callable[[str], str], more: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A file with other numbers under changed names, and more tensors beside."""
    return {**{change(name): torch.randn(value.shape) for name, value in TARGET.items()}, **(more or {})}


def head_to(body: str, head: str) -> Callable[[str], str]:
    return lambda name: name.replace("fc.", head) if name.startswith("fc.") else body + name


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: f"model.{name}",
        lambda name: f"net._orig_mod.{name}",
        lambda name: f"model._orig_mod.{name}",
        lambda name: f"module.backbone.{name}",
        lambda name: name.replace("layer1.0.", "layer1.module.0.").replace("fc.", "fc.module."),
        lambda name: name.replace("conv1.", "conv1._orig_mod."),
        head_to("", "fc.1."),
        head_to("", "head."),
        head_to("backbone.", "head."),
        head_to("resnet.", "classifier.1."),
        head_to("model.encoder.", "model.head.fc."),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"criterion.weight": torch.ones(10)}, {"metric.tp": torch.ones(()), "teacher_feat.weight": torch.ones(3, 3)}]
)
def test_one_renaming_that_fits_is_found(change: Callable[[str], str], more: dict[str, Tensor]) -> None:
    state = told(change, more)
    (found,) = renamings(state, TARGET, "fc")
    assert {name: found.names[name] for name in REAL} == {name: change(name) for name in REAL}
    assert set(found.left_out) == set(more)


def test_the_model_may_have_something_in_front() -> None:
    target = {f"net.{name}": value for name, value in TARGET.items()}
    (found,) = renamings(told(lambda name: name), target, "net.fc")
    assert {name: found.names[f"net.{name}"] for name in REAL} == {name: name for name in REAL}


def test_two_that_fit_are_both_told_unless_they_are_equal() -> None:
    state = told(lambda name: f"student.{name}")
    state |= {name.replace("student.", "teacher."): value + 1 for name, value in state.items()}
    assert [way.prefix for way in renamings(state, TARGET, "fc")] == ["student.", "teacher."]
    state |= {name.replace("student.", "copy."): value for name, value in state.items() if name.startswith("student.")}
    assert [way.prefix for way in renamings(state, TARGET, "fc")] == ["student.", "teacher."]


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.1.1.running_var", "fc.bias"])
def test_a_tensor_that_is_missing_or_of_another_shape_fits_nothing(name: str) -> None:
    state = told(lambda one: f"model.{one}")
    state[f"model.{name}"] = torch.ones(2, 2)
    assert renamings(state, TARGET, "fc") == []
    del state[f"model.{name}"]
    assert renamings(state, TARGET, "fc") == []


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_larger_model_is_not_cut(prefix: str) -> None:
    state = {prefix + name: value for name, value in network(blocks=3).items()}
    assert renamings(state, TARGET, "fc") == []


def test_a_classifier_that_two_modules_could_be_is_not_guessed() -> None:
    state = told(head_to("", "head_a."), {"head_b.weight": torch.ones(7, 4), "head_b.bias": torch.ones(7)})
    assert renamings(state, TARGET, "fc") == []


def test_without_a_declared_classifier_its_name_counts() -> None:
    assert len(renamings(told(lambda name: f"model.{name}"), TARGET, "")) == 1
    assert renamings(told(head_to("model.", "head.")), TARGET, "") == []
