"""What a run promises of its bits, and how it keeps that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.engine.determinism import deterministic_algorithms, promise
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.errors import RunError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_algorithms_are_on_while_the_run_trains_and_no_longer(
    experiment: Make, watcher: Any, tmp_path: Path, wanted: bool
) -> None:
    made = experiment(epochs=1, deterministic=wanted)
    seen: set[bool] = set()
    made.model.register_forward_hook(lambda *_: seen.add(torch.are_deterministic_algorithms_enabled()))
    run = RunDirectory.create(tmp_path / "run", profile=b"", resolved="", environment={}, state={"digest": "d" * 64})
    Loop(made, run, watcher).train()
    assert seen == {wanted}
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_settings_come_back_after_an_error(experiment: Make) -> None:
    with pytest.raises(KeyError, match="of the test"), deterministic_algorithms(experiment(deterministic=True)):
        raise KeyError("of the test")
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_is_promised(experiment: Make) -> None:
    made = experiment()
    assert promise(made).startswith("bit-identical after a resume")
    made.device = torch.device("cuda")
    assert promise(made).startswith("not bit-identical")
    made.settings = replace(made.settings, deterministic=True)
    assert promise(made).startswith("bit-identical after a resume")


@pytest.mark.parametrize(("device", "wanted", "benchmark"), [("cuda", False, True), ("cuda", True, False), ("cpu", False, None)])
def test_cudnn_tries_its_algorithms_unless_the_run_is_deterministic(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, benchmark: bool | None
) -> None:
    made = experiment(deterministic=wanted)
    made.device = torch.device(device)
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
        with deterministic_algorithms(made):
            assert torch.backends.cudnn.benchmark is (before if benchmark is None else benchmark)
        assert torch.backends.cudnn.benchmark is before


def test_what_has_no_deterministic_algorithm_is_named(experiment: Make) -> None:
    refusal = pytest.raises(RunError, match="does not go with `grid_backward_cuda`, which does not have a deterministic implementation")
    with refusal, deterministic_algorithms(experiment(deterministic=True)):
        raise RuntimeError("grid_backward_cuda does not have a deterministic implementation, but you set …")
    with pytest.raises(RuntimeError, match="other"), deterministic_algorithms(experiment(deterministic=True)):
        raise RuntimeError("other")
