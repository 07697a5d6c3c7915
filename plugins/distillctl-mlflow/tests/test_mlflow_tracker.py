"""Against a stand-in for the client, and once against MLflow itself with a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from distillctl.testing import TrackerContract


class TestContract(TrackerContract):
    spec = "mlflow"


class Refused(Exception):
    """What stands for MLflow's own exception."""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The client, with a run that it has never heard of. Importing the real one takes three seconds."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    stub = MagicMock(name="client")
    stub.search_runs.return_value = []
    stub.create_run.return_value.info.run_id = "r1"
    entities = SimpleNamespace(Metric=lambda key, value, timestamp, step: (key, value, step), Param=lambda key, value: (key, value))
    modules = {
        "mlflow": MagicMock(),
        "mlflow.entities": entities,
        "mlflow.exceptions": SimpleNamespace(MlflowException=Refused),
        "mlflow.tracking": SimpleNamespace(MlflowClient=stub.new),
    }
    stub.new.return_value = stub
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "distillctl_mlflow.tracker", raising=False)
    yield stub
    sys.modules.pop("distillctl_mlflow.tracker", None)


def logged(client: MagicMock, name: str = "val/top1") -> list[tuple[int, float]]:
    calls = [call.kwargs.get("metrics", ()) for call in client.log_batch.call_args_list]
    return [(step, value) for metrics in calls for key, value, step in metrics if key == name]


def test_a_whole_run(client: MagicMock, tmp_path: Path) -> None:
    TestContract().whole_run(TestContract().build(), tmp_path / "run-1")
    client.new.assert_called_once_with(tracking_uri=None)
    client.get_experiment_by_name.assert_called_once_with("distillctl")
    asked = client.create_run.call_args.kwargs
    assert asked == {"run_name": "run-1", "tags": {"distillctl.id": "0123456789abcdef"}}
    params = [param for call in client.log_batch.call_args_list for param in call.kwargs.get("params", ())]
    assert ("method.name", "kd") in params
    assert logged(client) == [(18, 0.5), (27, 0.75)]
    assert logged(client, "result/best/top1") == [(27, 0.75)]
    assert [call.args for call in client.set_terminated.call_args_list] == [("r1", "FINISHED")]


def test_a_run_that_goes_on_is_found_and_nothing_is_sent_twice(client: MagicMock, tmp_path: Path) -> None:
    info, data = SimpleNamespace(run_id="r0"), SimpleNamespace(metrics={"step": 21.0})
    client.search_runs.return_value = [SimpleNamespace(info=info, data=data)]
    TestContract().whole_run(TestContract().build(), tmp_path, finished=2)
    client.create_run.assert_not_called()
    assert client.search_runs.call_args.args[1] == "tags.`distillctl.id` = '0123456789abcdef'"
    assert logged(client) == [(27, 0.75)]
    assert logged(client, "step/total") == []
    assert [call.args for call in client.set_terminated.call_args_list] == [("r0", "RUNNING"), ("r0", "FINISHED")]


def test_a_run_that_stops_is_not_finished(client: MagicMock, tmp_path: Path) -> None:
    tracker = TestContract().build()
    tracker.begin(TestContract().start(tmp_path))
    tracker.close()
    assert [call.args for call in client.set_terminated.call_args_list] == [("r1", "KILLED")]


def test_an_experiment_that_another_run_makes_at_the_same_time(client: MagicMock, tmp_path: Path) -> None:
    client.get_experiment_by_name.side_effect = [None, SimpleNamespace(experiment_id="7")]
    client.create_experiment.side_effect = Refused
    TestContract().whole_run(TestContract().build(), tmp_path)
    assert client.create_run.call_args.args == ("7",)


def test_names_of_several_teachers_terms_are_such_as_mlflow_takes(client: MagicMock, tmp_path: Path) -> None:
    """It takes letters, digits and `_-./: `, and refuses a whole portion for one name that has others."""
    from distillctl_mlflow.tracker import legal

    names = ["terms/at[vgg8]", "terms/at[resnet8-2]", "method.0.temperature", "terms/kd"]
    assert [legal(name) for name in names] == ["terms/at.vgg8", "terms/at.resnet8-2", "method.0.temperature", "terms/kd"]


PROGRAM = """
import json
from pathlib import Path
from distillctl.testing import TrackerContract
from distillctl.testing.trackers import RECORDS, REPORT

class Contract(TrackerContract):
    spec, options = "mlflow", {"uri": "sqlite:///kept.db"}

first = Contract().build()
first.begin(Contract().start(Path("run")))
first.batch(REPORT)
first.epoch(RECORDS[0])
first.epoch(RECORDS[1])
first.close()
Contract().whole_run(Contract().build(), Path("run"), finished=1)

from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///kept.db")
(run,) = client.search_runs([client.get_experiment_by_name("distillctl").experiment_id])
history = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in ("val/top1", "step/total")}
Path("found.json").write_text(json.dumps([run.info.run_name, run.info.status, history, run.data.params]))
"""


@pytest.mark.slow
def test_mlflow_itself_has_each_epoch_of_a_continued_run_once(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    name, status, history, params = json.loads((tmp_path / "found.json").read_text())
    assert (name, status) == ("run", "FINISHED")
    assert history == {"val/top1": [[18, 0.5], [27, 0.75]], "step/total": [[12, 2.5], [21, 2.5]]}
    assert params["method.name"] == "kd"
