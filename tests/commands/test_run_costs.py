"""The costs of a finished run are told without a change of its networks, and never at the price of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from distillctl import View
from distillctl.commands import run_costs as module
from distillctl.commands.run_costs import run_costs
from distillctl.engine.experiment import Experiment
from distillctl.models.cost import macs
from distillctl.models.fake_quantise import quantise
from distillctl.models.features import Tapped
from distillctl.testing.tiny_models import TINY_CNN, TINY_WIDE, TinyCNN, build_tiny


def experiment(size: int = 8, precision: str = "fp32") -> Experiment:
    data = SimpleNamespace(channels=3, view=View(size))
    made = SimpleNamespace(device=torch.device("cpu"), task=SimpleNamespace(data=data), settings=SimpleNamespace(precision=precision))
    return cast(Experiment, made)


class NeedsTwo(nn.Module):
    """Cannot compute one image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        if len(images) < 2:
            raise KeyError("two")
        logits: Tensor = self.fc(images.mean((2, 3)))
        return logits


def state(model: nn.Module) -> list[Any]:
    return [
        *(value.clone() for value in model.state_dict().values()),
        *(torch.tensor([module.training, len(module._forward_hooks)]) for module in model.modules()),
        torch.get_rng_state(),
    ]


def test_costs_of_both_sides() -> None:
    student, teacher = TinyCNN(10).train(), Tapped(build_tiny("tiny_wide", 10), TINY_WIDE, ["stage1"])
    before = state(student), state(teacher)
    found = run_costs(experiment(), {"student": student, "teacher": teacher.model})
    assert {name: cost["parameters"] for name, cost in found.items()} == {"student": TINY_CNN.parameters, "teacher": TINY_WIDE.parameters}
    assert {name: cost["macs"] for name, cost in found.items()} == {"student": 87_872, "teacher": 435_936}
    assert all(cost["ms"] > 0 and cost["device"] == "cpu" and cost["threads"] == torch.get_num_threads() for cost in found.values())
    for model, was in zip((student, teacher), before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(state(model), was, strict=True))
    assert run_costs(experiment(16), {"student": student})["student"]["macs"] == macs(student, (3, 16, 16)) > 3 * 87_872


def test_simulated_rounding_is_not_the_students_cost() -> None:
    student, plain = TinyCNN(10), [type(module) for module in TinyCNN(10).modules()]
    quantise(student)
    assert run_costs(experiment(), {"student": student})["student"]["macs"] == 87_872
    assert [type(module) for module in student.modules()] == plain


def test_a_model_that_cannot_compute_one_image_does_not_lose_the_run() -> None:
    found = run_costs(experiment(), {"student": TinyCNN(10), "teacher": NeedsTwo()})
    assert found["teacher"] == {"parameters": 16}
    assert set(found["student"]) == {"parameters", "macs", "ms", "device", "threads"}


@pytest.mark.parametrize(("precision", "last"), [("fp32", False), ("bf16", True)])
def test_both_sides_lie_in_memory_as_in_the_run(precision: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def timed(model: TinyCNN, images: Tensor, **_: object) -> Any:
        weight = model.stage1[0].weight
        seen.append(images.is_contiguous(memory_format=torch.channels_last) and weight.is_contiguous(memory_format=torch.channels_last))
        return SimpleNamespace(median=0.5)

    monkeypatch.setattr(module, "forward_latency", timed)
    assert run_costs(experiment(precision=precision), {"student": TinyCNN(10)})["student"]["ms"] == 500
    assert seen == [last]
