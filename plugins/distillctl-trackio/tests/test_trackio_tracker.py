"""Against a stand-in for the client, and once against Trackio itself in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from distillctl.testing import TrackerContract


class TestContract(TrackerContract):
    spec = "trackio"


@pytest.fixture(autouse=True)
def trackio(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The client, with a run that it has never heard of. Importing the real one takes two seconds."""
    stub = MagicMock(name="trackio")
    stub.init.return_value._next_step = 0
    monkeypatch.setitem(sys.modules, "trackio", stub)
    monkeypatch.delitem(sys.modules, "distillctl_trackio.tracker", raising=False)
    yield stub
    sys.modules.pop("distillctl_trackio.tracker", None)


def logged(trackio: MagicMock, name: str = "val/top1") -> list[tuple[int, float]]:
    calls = trackio.init.return_value.log.call_args_list
    return [(call.kwargs["step"], call.args[0][name]) for call in calls if name in call.args[0]]


def test_a_whole_run(trackio: MagicMock, tmp_path: Path) -> None:
    TestContract().whole_run(TestContract().build(), tmp_path / "run-1")
    asked = trackio.init.call_args.kwargs
    assert (asked["project"], asked["name"], asked["resume"], asked["space_id"]) == ("distillctl", "run-1-012345", "allow", None)
    assert asked["config"]["method.name"] == "kd"
    assert logged(trackio) == [(18, 0.5), (27, 0.75)]
    assert logged(trackio, "result/best/top1") == [(27, 0.75)]
    trackio.init.return_value.finish.assert_called_once_with()


def test_what_the_service_has_is_not_sent_again(trackio: MagicMock, tmp_path: Path) -> None:
    trackio.init.return_value._next_step = 22
    TestContract().whole_run(TestContract().build(), tmp_path, finished=2)
    assert logged(trackio) == [(27, 0.75)]
    assert logged(trackio, "step/total") == []


PROGRAM = """
import json, sys
from pathlib import Path
from distillctl.testing import TrackerContract
from distillctl.testing.trackers import RECORDS, REPORT

class Contract(TrackerContract):
    spec = "trackio"

first = Contract().build()
first.begin(Contract().start(Path("run")))
first.batch(REPORT)
first.epoch(RECORDS[0])
first.epoch(RECORDS[1])
first.close()
Contract().whole_run(Contract().build(), Path("run"), finished=1)

from trackio.sqlite_storage import SQLiteStorage
(run,) = SQLiteStorage.get_runs("distillctl")
Path("found.json").write_text(json.dumps([run, SQLiteStorage.get_logs("distillctl", run), SQLiteStorage.get_run_config("distillctl", run)]))
"""


@pytest.mark.slow
def test_trackio_itself_has_each_epoch_of_a_continued_run_once(tmp_path: Path) -> None:
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "kept"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    name, lines, config = json.loads((tmp_path / "found.json").read_text())
    assert name == "run-012345"
    assert [(line["step"], line["val/top1"]) for line in lines if "val/top1" in line] == [(18, 0.5), (27, 0.75)]
    assert [line["step"] for line in lines if "step/total" in line] == [12, 21]
    assert config["method.name"] == "kd"
