"""What a teacher that runs at every step gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillctl.engine.experiment import Experiment


def test_nothing_that_it_sees_carries_a_gradient(experiment: Callable[..., Experiment]) -> None:
    """Nor does anything of its forward stay in memory, even if somebody has thawed its weights."""
    made = experiment()
    network: Any = made.network
    network.requires_grad_()
    batch = next(iter(made.loader.epoch(0)))
    assert made.teacher is not None
    seen = made.teacher.look(batch, ("running", "batch"))
    assert set(seen) == {"running", "batch"}
    assert all(value.grad_fn is None and not value.requires_grad for outputs in seen.values() for value in outputs.values())
