from __future__ import annotations

import pytest
import torch
from torch import tensor

from distillctl.engine.meter import Tally
from distillctl.errors import RunError

CPU = torch.device("cpu")


def logits(*guesses: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(tensor(guesses), 3).float()


def test_means_are_over_images_not_over_batches() -> None:
    tally = Tally(CPU)
    tally.add(tensor([0, 1, 2]), logits(0, 1, 1), tensor(4.0), {"task": tensor(1.0), "kd": tensor(3.0)})
    tally.add(tensor([0]), logits(0), tensor(8.0), {"task": tensor(2.0), "kd": tensor(6.0)})
    reading = tally.read()
    assert reading.images == 4
    assert reading.terms == {"task": 1.25, "kd": 3.75}
    assert reading.total == 5.0
    assert reading.top1 == 0.75


def test_terms_must_not_change_within_an_epoch() -> None:
    tally = Tally(CPU)
    tally.add(tensor([0]), logits(0), tensor(1.0), {"task": tensor(1.0)})
    with pytest.raises(RunError, match="changed"):
        tally.add(tensor([0]), logits(0), tensor(1.0), {"other": tensor(1.0)})
