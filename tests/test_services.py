"""Whatever a service's client does, a run is told of it in a line and goes on: with a stand-in for each client."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from distillctl.api.tracker import Tracker
from distillctl.engine import trackers as module
from distillctl.engine.trackers import Trackers
from distillctl.testing import TrackerContract

CLIENTS = {
    "tensorboard": {"torch.utils.tensorboard.writer": "SummaryWriter"},
    "wandb": {"wandb": "init"},
    "trackio": {"trackio": "init"},
    "mlflow": {"mlflow": "", "mlflow.entities": "", "mlflow.exceptions": "", "mlflow.tracking": "MlflowClient"},
}
"""Modules of the client, and what opens it."""


class Ear(Tracker):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.epochs = 0

    def note(self, text: str) -> None:
        if text.startswith("WARNING"):
            self.notes.append(text)

    def epoch(self, record: object) -> None:
        self.epochs += 1


@pytest.fixture(params=CLIENTS)
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, MagicMock]]:
    """A service's name, and what opens its client."""
    name, opens = request.param, MagicMock()
    for client, attribute in CLIENTS[name].items():
        stub = MagicMock(name=client)
        stub.MlflowException = RuntimeError
        if attribute:
            setattr(stub, attribute, opens)
        monkeypatch.setitem(sys.modules, client, stub)
    ours = f"distillctl_{name}.tracker"
    monkeypatch.delitem(sys.modules, ours, raising=False)
    yield name, opens
    sys.modules.pop(ours, None)
    module.left_behind.clear()


def played(name: str, folder: Path) -> Ear:
    """What a run tells its display while it has this tracker."""
    contract, ear = TrackerContract(), Ear()
    contract.spec = name  # type: ignore[misc]
    contract.whole_run(Trackers([ear], {name: contract.build()}), folder)
    assert ear.epochs == 3
    return ear


def test_a_client_that_cannot_be_opened(service: tuple[str, MagicMock], tmp_path: Path) -> None:
    name, opens = service
    opens.side_effect = ConnectionError("no network")
    (note,) = played(name, tmp_path).notes
    assert note == f"WARNING: the tracker `{name}` failed in `begin`, and the run goes on without it: ConnectionError: no network"


CALLS = {
    "tensorboard": ("add_scalar", "add_text", "flush"),
    "wandb": ("define_metric", "log", "finish"),
    "trackio": ("log", "finish"),
    "mlflow": ("search_runs", "create_run", "log_batch", "set_terminated"),
}


def test_a_client_that_raises_at_some_call(service: tuple[str, MagicMock], tmp_path: Path) -> None:
    name, opens = service
    for call in CALLS[name]:
        opens.reset_mock(return_value=True, side_effect=True)
        opened = opens.return_value
        opened.starting_step = opened._next_step = 0
        opened.search_runs.return_value = []
        getattr(opened, call).side_effect = OSError(28, "No space left on device")
        (note,) = played(name, tmp_path / call).notes
        assert "No space left on device" in note, call


def test_a_client_that_hangs(service: tuple[str, MagicMock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    name, opens = service
    free = threading.Event()
    opens.side_effect = lambda *_, **__: free.wait(20)
    try:
        began = time.monotonic()
        (note,) = played(name, tmp_path).notes
        assert time.monotonic() - began < 5
    finally:
        free.set()
    assert note.startswith(f"WARNING: the tracker `{name}` was not ready 0.2 s after the run, but in `begin`: ")
    assert module.left_behind == [name]
