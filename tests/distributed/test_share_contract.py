"""The contract finds methods whose loss is another one on several processes than on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl import Batch, Features, Method, MethodSpec, Progress, draw_rows
from distillctl.testing import MethodContract

TEST = "test_compares_images_is_declared"


class Mean(Method):
    """Mean over images."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        """Of each image."""
        return torch.ones(len(rows))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        rows = (student["logits"] - teacher["logits"].detach()).square().sum(1)
        return (rows * self.weights(batch, rows)).mean()


class Sum(Mean):
    """As large as the share."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        return torch.full((len(rows),), float(len(rows)))


class WholeSum(Mean):
    """As large as the whole batch."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        return torch.full((len(rows),), float(batch.total or len(rows)))


class Drawn(Mean):
    """Every process draws the same numbers for its images."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        return torch.rand(len(rows))


class DrawnByRows(Mean):
    """Every process draws what one would draw for its images."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        return draw_rows(batch, torch.rand)


class Comparing(Mean):
    """Looks at the pairs of images."""

    def weights(self, batch: Batch, rows: Tensor) -> Tensor:
        return rows.detach() / rows.detach().mean()


METHODS = {cls.__name__: cls for cls in (Mean, Sum, WholeSum, Drawn, DrawnByRows, Comparing)}


def judge(monkeypatch: pytest.MonkeyPatch, cls: type[Method], compares_images: bool) -> None:
    """Runs the contract's test on a method."""
    spec = MethodSpec(name="made_up", kind="logits", summary="for tests", implementation="made_up:Method", compares_images=compares_images)
    monkeypatch.setattr("distillctl.testing.cases.load", lambda *_: cls)
    case: Any = type("Case", (MethodContract,), {"spec": spec})()
    getattr(case, TEST)()


@pytest.mark.parametrize(("cls", "compares"), [("Mean", False), ("WholeSum", False), ("DrawnByRows", False), ("Comparing", True)])
def test_true_declarations_pass(monkeypatch: pytest.MonkeyPatch, cls: str, compares: bool) -> None:
    judge(monkeypatch, METHODS[cls], compares)


@pytest.mark.parametrize("cls", ["Sum", "Drawn", "Comparing"])
def test_what_depends_on_the_share_is_found(monkeypatch: pytest.MonkeyPatch, cls: str) -> None:
    with pytest.raises(AssertionError, match="compares_images"):
        judge(monkeypatch, METHODS[cls], False)


@pytest.mark.parametrize("cls", ["Mean", "DrawnByRows"])
def test_a_key_that_would_do_nothing_is_found(monkeypatch: pytest.MonkeyPatch, cls: str) -> None:
    with pytest.raises(AssertionError, match="gather"):
        judge(monkeypatch, METHODS[cls], True)
