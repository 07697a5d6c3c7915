"""How the processes of a run meet, without any others to meet."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import torch

from distillctl.distributed import process_group as module
from distillctl.distributed.process_group import ALONE, join


@pytest.mark.parametrize(
    ("device", "stated", "data"),
    [("cpu", "", ("gloo", 45)), ("cpu", "700", ("gloo", 700)), ("cuda", "", ("nccl", 600)), ("cuda", "700", ("nccl", 700))],
)
def test_nccl_waits_longer_than_the_host(monkeypatch: pytest.MonkeyPatch, device: str, stated: str, data: tuple[str, int]) -> None:
    """It ends a process whose kernels wait, be the other one lost or only late; what tells these apart are the exchanges of the host."""
    made: list[tuple[str, timedelta]] = []

    def group(backend: str, timeout: timedelta, **_: Any) -> int:
        made.append((backend, timeout))
        return len(made)

    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "DISTILLCTL_PATIENCE": stated}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DISTILLCTL_GROUP", raising=False)
    monkeypatch.setattr(module, "_joined", ALONE)
    monkeypatch.setattr(module.heartbeat, "met", threading.Event())
    monkeypatch.setattr(module.dist, "init_process_group", group)
    monkeypatch.setattr(module.dist, "new_group", group)
    joined = join(torch.device(device))
    patience = timedelta(seconds=float(stated or 45))
    wanted = data[0], timedelta(seconds=data[1])
    expected = [("gloo", timedelta(minutes=30)), ("gloo", patience), wanted]
    assert made == (expected if device == "cuda" else [*expected, ("gloo", patience)])
    assert (joined.control, joined.data) == (2, 3)
    assert joined.features == (3 if device == "cuda" else 4)
