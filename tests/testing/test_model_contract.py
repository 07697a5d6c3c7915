"""The tiny models keep the contract, and the contract finds what is wrong with a model."""

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

from distillctl.errors import DistillError
from distillctl.testing.models import ModelContract
from distillctl.testing.tiny_models import TINY_CNN, TINY_MODELS, TinyCNN


class TestTinyModels(ModelContract):
    specs = TINY_MODELS
    sizes = (8, 12, 16)


class TestTinyModelsOfOtherWidth(ModelContract):
    specs = TINY_MODELS
    options: ClassVar = {"width": 4}


def checks():
    return sorted(name for name in dir(ModelContract) if name.startswith("test_"))


def failing(spec, builder):
    """Names of the checks that a model fails."""
    contract = ModelContract()
    contract.build = lambda _spec: builder().train()  # type: ignore[method-assign]
    wrong = []
    for name in checks():
        torch.manual_seed(0)
        try:
            getattr(contract, name)(spec)
        except (AssertionError, AttributeError, DistillError):
            wrong.append(name)
    return wrong


def test_a_wrong_number_of_parameters_is_found():
    wrong = dataclasses.replace(TINY_CNN, parameters=TINY_CNN.parameters + 1)
    with pytest.raises(AssertionError, match="with 10 classes it has 7,010"):
        ModelContract().test_as_many_parameters_as_the_spec_says(wrong)


class TwiceNormalised(TinyCNN):
    def forward(self, images):
        x = self.stem(images)
        self.stage1[1](self.stage1[0](x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(x.mean((2, 3)))


class Unused(TinyCNN):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.spare = nn.Linear(2, 2)


class DeafToWeights(TinyCNN):
    """Keeps part of what it knows outside its state dict."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.hidden = torch.rand(1, 3, 1, 1)

    def forward(self, images):
        return super().forward(images * self.hidden)


class Learning(TinyCNN):
    """Counts forwards even in evaluation."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


class Scaled(TinyCNN):
    def forward(self, images):
        return 2 * super().forward(images)


@pytest.mark.parametrize(
    ("spec", "builder", "expected"),
    [
        (TINY_CNN, lambda: TinyCNN(7), []),
        (TINY_CNN, lambda: TinyCNN(8), ["test_classifier_is_the_last_layer", "test_logits_have_one_column_a_class"]),
        (TINY_CNN, lambda: Unused(7), ["test_backward_reaches_every_parameter"]),
        (TINY_CNN, lambda: DeafToWeights(7), ["test_state_dict_goes_round"]),
        (TINY_CNN, lambda: Learning(7), ["test_probe_changes_nothing"]),
        (TINY_CNN, lambda: Scaled(7), ["test_classifier_is_the_last_layer"]),
    ],
    ids=["sound", "wrong-classes", "unused-parameter", "hidden-state", "learns-in-evaluation", "scales-after-classifier"],
)
def test_the_contract_finds_faults(spec, builder, expected):
    assert failing(spec, builder) == expected


def test_the_contract_finds_a_layer_that_runs_twice():
    without = dataclasses.replace(TINY_CNN, stages={k: v for k, v in TINY_CNN.stages.items() if k != "stage1:pre"})
    assert "test_every_stage_is_reached_once" in failing(TINY_CNN, lambda: TwiceNormalised(7))
    assert failing(without, lambda: TwiceNormalised(7)) == ["test_statistics_move_once_a_forward"]


def test_the_contract_finds_a_stage_that_does_not_exist():
    assert "test_every_stage_is_reached_once" in failing(dataclasses.replace(TINY_CNN, stages={"stage1": "layer1"}), lambda: TinyCNN(7))


def test_the_contract_finds_a_pre_activation_of_another_stage():
    stages = {**TINY_CNN.stages, "stage1:pre": "stage2.1"}
    assert failing(dataclasses.replace(TINY_CNN, stages=stages), lambda: TinyCNN(7)) == ["test_every_stage_is_reached_once"]
