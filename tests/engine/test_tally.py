from __future__ import annotations

import pytest
import torch
from torch import tensor

from distillctl.engine.tally import Tally
from distillctl.errors import RunError

CPU = torch.device("cpu")


def logits(*guesses: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(tensor(guesses), 3).float()


def test_means_are_over_images_not_over_batches() -> None:
    tally = Tally(CPU)
    tally.add(0, tensor([0, 1, 2]), logits(0, 1, 1), tensor(4.0), {"task": tensor(1.0), "kd": tensor(3.0)})
    tally.add(1, tensor([0]), logits(0), tensor(8.0), {"task": tensor(2.0), "kd": tensor(6.0)})
    reading = tally.read()
    assert reading.images == 4
    assert reading.terms == {"task": 1.25, "kd": 3.75}
    assert reading.total == 5.0
    assert reading.top1 == 0.75


def test_the_first_term_that_is_not_finite_is_named_with_its_step() -> None:
    tally = Tally(CPU)
    tally.add(6, tensor([0]), logits(0), tensor(1.0), {"task": tensor(1.0), "crd": tensor(1.0)})
    tally.add(7, tensor([0]), logits(0), tensor(float("nan")), {"task": tensor(1.0), "crd": tensor(float("inf"))})
    tally.add(8, tensor([0]), logits(0), tensor(float("nan")), {"task": tensor(float("nan")), "crd": tensor(1.0)})
    with pytest.raises(RunError, match=r"`crd` at step 8") as caught:
        tally.read()
    assert "task" not in caught.value.problems[0].message


def test_terms_must_not_change_within_an_epoch() -> None:
    tally = Tally(CPU)
    tally.add(0, tensor([0]), logits(0), tensor(1.0), {"task": tensor(1.0)})
    with pytest.raises(RunError, match="changed"):
        tally.add(1, tensor([0]), logits(0), tensor(1.0), {"other": tensor(1.0)})
