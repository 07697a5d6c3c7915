"""The sketch for several processes in `plugins/README.md` works, and is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl import MethodSpec
from distillctl.testing import MethodContract

GUIDE = Path(__file__).parents[2] / "plugins" / "README.md"


@pytest.fixture
def sketch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A case of the contract for the method of the guide."""
    names: dict[str, Any] = {}
    exec(GUIDE.read_text(encoding="utf-8").partition("```py\n")[2].partition("```")[0], names)
    monkeypatch.setattr("distillctl.testing.cases.load", lambda *_: names["Noisy"])
    spec = MethodSpec(name="noisy", kind="logits", summary="for tests", implementation="guide:Noisy")
    return type("Case", (MethodContract,), {"spec": spec})()


def test_its_loss_is_the_mean_over_shares(sketch: Any) -> None:
    sketch.test_compares_images_is_declared()


def test_its_running_mean_takes_in_all_parts_of_a_batch_once(sketch: Any) -> None:
    setup = sketch.setup()
    method, expected = sketch.build(setup), 1.0
    for seed in (0, 1):
        inputs = sketch.inputs(setup, seed=seed)
        sketch.loss(method, inputs, seed=seed)
        torch.manual_seed(seed)
        noisy = inputs.student["logits"] + 0.1 * torch.randn(7, 10)
        expected += 0.01 * (float((noisy - inputs.teacher["logits"]).detach().square().sum(1).mean()) - expected)
    with torch.no_grad():
        method.after_step()
        method.after_step()
    assert float(method.mean) == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_it_compiles_and_resumes(sketch: Any) -> None:
    sketch.test_compiles_once_for_all_epochs()
    sketch.test_state_dict_resumes_exactly()
