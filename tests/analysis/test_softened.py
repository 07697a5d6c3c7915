"""Softened answers and the gradient of distillation, against plain loops and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distillctl.analysis.softened import gradient, softened, softmax
from distillctl.api.losses import kd_loss

DRAW = np.random.default_rng(7)
TEACHER, STUDENT = DRAW.normal(0, 4, (6, 5)), DRAW.normal(0, 2, (6, 5))
LABEL = np.array([0, 1, 2, 3, 4, 0])


def by_hand(logits: np.ndarray, temperature: float) -> list[list[float]]:
    found = []
    for row in logits:
        powers = [math.exp(z / temperature) for z in row]
        found.append([power / sum(powers) for power in powers])
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 100.0])
def test_means_are_those_of_a_plain_loop(temperature: float) -> None:
    shares = by_hand(TEACHER, temperature)
    found = softened(TEACHER, LABEL, temperature)
    assert found.temperature == temperature
    assert found.entropy == pytest.approx(sum(-sum(p * math.log(p) for p in row) for row in shares) / 6)
    assert found.others == pytest.approx(sum(1 - row[label] for row, label in zip(shares, LABEL, strict=True)) / 6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_is_that_of_the_loss(temperature: float) -> None:
    student = torch.from_numpy(STUDENT).requires_grad_()
    kd_loss(student, torch.from_numpy(TEACHER), temperature, temperature).backward()
    assert student.grad is not None
    pushed = student.grad.numpy() * len(STUDENT)  # the loss is a mean over images
    found = gradient(TEACHER, STUDENT, LABEL, temperature)
    assert found.size == pytest.approx(float(np.mean([math.sqrt(sum(g * g for g in row)) for row in pushed])))
    own = sum(row[label] ** 2 for row, label in zip(pushed, LABEL, strict=True))
    assert found.label == pytest.approx(own / (pushed**2).sum())
    assert found.label + found.others == pytest.approx(1)


def test_large_logits_and_equal_networks() -> None:
    assert softmax(np.array([[1000.0, 0.0]]), 1.0).tolist() == [[1.0, 0.0]]
    assert softened(np.array([[1000.0, 0.0]]), np.array([0]), 1.0).entropy == 0
    same = gradient(TEACHER, TEACHER, LABEL, 2.0)
    assert same.size == 0
    assert math.isnan(same.label)
