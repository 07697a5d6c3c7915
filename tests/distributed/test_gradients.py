"""With N processes the first step's gradients of every method are those of one process on the same batch of 13 images.

All is computed in float64, batch normalisation is frozen or synchronised. For each parameter p the difference is measured as

    max |g_N − g_1| / max |g_1|        over the elements of p
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.plugin.registry import Registry

pytestmark = pytest.mark.slow

Found = dict[int, dict[str, Any]]
Gradients = dict[str, Tensor | None]
PRECISION = 1e-6
SMALLEST = 1e-12
"""A gradient that is zero but for rounding, such as that of a bias before a normalisation, has no relative error."""
OTHERS = (2, 4)


def check(ours: Gradients, one: Gradients, precision: float = PRECISION) -> None:
    """Compares tensors by name, in the norm above."""
    assert {n for n, g in ours.items() if g is not None} == {n for n, g in one.items() if g is not None}
    largest = max((float(g.abs().max()) for g in one.values() if g is not None), default=0.0)
    for name, expected in one.items():
        got = ours[name]
        if expected is not None and got is not None:
            assert expected.dtype == torch.float64
            allowed = precision * float(expected.abs().max()) + SMALLEST * largest
            assert float((got - expected).abs().max()) <= allowed, (
                f"{name}: {float((got - expected).abs().max() / expected.abs().max()):.1e}"
            )


def parts(result: dict[str, Any]) -> list[str]:
    """The parts of the run whose gradients were taken."""
    return [name for name, value in result.items() if isinstance(value, tuple)]


def test_gradients_are_those_of_one_process(found: Found, case: str, count: int) -> None:
    """Both gradients, where the optimizer wants two, in every phase and in the main part."""
    one, several = found[1][case], found[count][case]
    assert parts(one) == parts(several)
    for part in parts(one):
        alone = "by_hand" in one
        for ours, expected in zip(several[part], one[part], strict=True):
            check(ours, one["by_hand"][count] if alone and expected else expected)


def test_weights_stay_together_for_three_steps(found: Found, case: str, count: int) -> None:
    """All processes have the same weights, bit for bit, and those of one process but for rounding."""
    one, several = found[1][case], found[count][case]
    first, *others = several["sums"]
    assert len(others) == count - 1
    assert all(other == first for other in others)
    if "by_hand" not in one:
        check(several["moves"], one["moves"], 1e-5)


def test_buffers_and_figures_of_methods_are_equal_on_all_processes(found: Found, case: str, count: int) -> None:
    """Bit for bit; and those of one process, but for rounding."""
    first, *others = found[count][case]["buffers"]
    (one,) = found[1][case]["buffers"]
    assert first.keys() == one.keys()
    for name, value in first.items():
        assert all(torch.equal(value, other[name]) for other in others), name
        if "by_hand" not in found[1][case]:
            torch.testing.assert_close(value, one[name], rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
    figures, *rest = found[count][case]["metrics"]
    assert all(other == figures for other in rest)
    if "by_hand" not in found[1][case]:
        assert figures == pytest.approx(found[1][case]["metrics"][0], rel=1e-5)


def test_every_method_is_here(found: Found) -> None:
    assert {spec.name for spec in Registry.load().methods} <= found[1].keys()


def test_phases_and_both_gradients_were_compared(found: Found) -> None:
    """What the tests above compare is there."""
    both = found[2]["ft, fsp, ab and kd with dot"]
    assert parts(both) == ["ft.paraphraser", "fsp.init", "ab.init", "main"]
    for name in ("ft, fsp, ab and kd with dot", "kd with dot"):
        task, distillation = found[2][name]["main"]
        assert sum(g is not None for g in task.values()) > 10
        assert sum(g is not None for g in distillation.values()) > 10
    assert {"crd.student_bank", "crd.log_z"} <= found[2]["crd"]["buffers"][0].keys()


@pytest.mark.parametrize("count", OTHERS)
@pytest.mark.parametrize("name", ["sp", "rkd", "pkt", "cc", "dist", "pkd"])
def test_comparing_all_images_is_something_else_than_comparing_shares(found: Found, name: str, count: int) -> None:
    alone, gathered = (found[count][case]["main"][0] for case in (f"{name}, each process alone", name))
    assert any(not torch.allclose(alone[p], g, rtol=1e-3, atol=0) for p, g in gathered.items() if g is not None)


@pytest.mark.parametrize("count", [1, *OTHERS])
@pytest.mark.parametrize("optimizer", ["", ", with dot"])
def test_what_no_loss_reaches_has_no_gradient(found: Found, optimizer: str, count: int) -> None:
    for grads in found[count][f"a branch that no loss reaches{optimizer}"]["main"]:
        assert [name for name, g in grads.items() if g is None] == (
            ["student.model.idle.weight", "student.model.idle.bias"] if grads else []
        )


@pytest.mark.parametrize("count", [1, *OTHERS])
@pytest.mark.parametrize("optimizer", ["", " with dot"])
def test_a_batch_in_two_parts_has_the_gradients_of_the_whole(found: Found, optimizer: str, count: int) -> None:
    cut, whole = found[count][f"kd in two parts{optimizer}"], found[1][f"kd{optimizer}"]
    for ours, expected in zip(cut["main"], whole["main"], strict=True):
        check(ours, expected)
