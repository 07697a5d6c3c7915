"""Two commands want one run."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROFILE = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[optimizer]
lr = 0.02
[train]
epochs = {epochs}
save_every = "0.05s"
"""


def test_of_starts_at_the_same_instant_one_trains_and_the_others_are_told(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], tmp_path: Path
) -> None:
    (tmp_path / "profile.toml").write_text(PROFILE.format(epochs=4))
    chaos.finish(tmp_path, "straight")
    for number in range(runs(1)):
        processes = [chaos.train(tmp_path, f"contested-{number}") for _ in range(3)]
        codes = [process.wait() for process in processes]
        said = processes[0].log.read_text()
        refused = said.count(f"error: `contested-{number}` is being trained by process")
        late = said.count(f"this run is finished: contested-{number}")
        assert refused + late == 2, said
        assert refused > 0, said
        assert sorted(codes) == [0] * (1 + late) + [1] * refused, said
        assert "Traceback" not in said
        assert equal(chaos.outcome(tmp_path / "straight"), chaos.outcome(tmp_path / f"contested-{number}"))


def test_a_run_that_is_trained_is_left_alone_and_continued_when_its_process_is_dead(chaos: Any, tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text(PROFILE.format(epochs=2000))
    first = chaos.train(tmp_path, "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text().count("\n") > 1):
        assert time.monotonic() < deadline, first.log.read_text()
        time.sleep(0.01)
    second = chaos.train(tmp_path, "run")
    assert second.wait() == 1
    assert f"`run` is being trained by process {first.pid} on " in second.log.read_text()
    assert first.poll() is None
    first.send(signal.SIGKILL)
    first.wait()
    done = json.loads((tmp_path / "run" / "run.json").read_text())["epoch"]
    third = chaos.train(tmp_path, "run")
    while json.loads((tmp_path / "run" / "run.json").read_text())["epoch"] <= done:
        assert third.poll() is None, third.log.read_text()
        time.sleep(0.01)
    third.send(signal.SIGTERM)
    assert third.wait() == 143
