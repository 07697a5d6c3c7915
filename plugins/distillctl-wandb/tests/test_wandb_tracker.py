"""Against a stand-in for the client: what it is asked, and that a run that goes on is the same one there."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from distillctl.testing import TrackerContract


class TestContract(TrackerContract):
    spec = "wandb"


@pytest.fixture(autouse=True)
def wandb(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """The client, with a run that it has never heard of. Importing the real one takes a second."""
    for name in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    stub = MagicMock(name="wandb")
    stub.init.return_value.starting_step = 0
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.delitem(sys.modules, "distillctl_wandb.tracker", raising=False)
    yield stub
    sys.modules.pop("distillctl_wandb.tracker", None)


def logged(wandb: MagicMock, name: str = "val/top1") -> list[tuple[int, float]]:
    calls = wandb.init.return_value.log.call_args_list
    return [(call.kwargs["step"], call.args[0][name]) for call in calls if name in call.args[0]]


def test_a_whole_run(wandb: MagicMock, tmp_path: Path) -> None:
    TestContract().whole_run(TestContract().build(), tmp_path / "run-1")
    (start,) = wandb.init.call_args_list
    asked = start.kwargs
    assert (asked["id"], asked["name"], asked["resume"], asked["dir"]) == ("0123456789abcdef", "run-1", "allow", str(tmp_path / "run-1"))
    assert (asked["project"], asked["entity"], asked["mode"]) == ("distillctl", None, None)
    assert asked["config"]["method.name"] == "kd"
    assert asked["config"]["device"] == "cpu"
    assert not [name for name in asked if "key" in name]
    assert [call.kwargs for call in wandb.Settings.call_args_list] == [{"silent": True}, {"console": "off", "silent": True}]
    run = wandb.init.return_value
    run.define_metric.assert_called_once_with("*", step_metric="epoch")
    assert logged(wandb) == [(18, 0.5), (27, 0.75)]
    assert logged(wandb, "step/terms/kd") == [(3, 0.5), (12, 0.5), (21, 0.5)]
    assert logged(wandb, "train_top1") == [(18, 0.4), (27, 0.4)]
    (summary,) = (call.args[0] for call in run.summary.update.call_args_list)
    assert (summary["result/best/top1"], summary["teacher/top1"]) == (0.75, 0.9)
    run.finish.assert_called_once_with()


def test_what_the_service_has_is_not_sent_again(wandb: MagicMock, tmp_path: Path) -> None:
    """It has 21 steps, the run only two of its three epochs: the third begins anew."""
    wandb.init.return_value.starting_step = 22
    TestContract().whole_run(TestContract().build(), tmp_path, finished=2)
    assert logged(wandb) == [(27, 0.75)]
    assert logged(wandb, "step/total") == []


def test_what_the_service_lacks_is_sent(wandb: MagicMock, tmp_path: Path) -> None:
    TestContract().whole_run(TestContract().build(), tmp_path, finished=2)
    assert logged(wandb) == [(18, 0.5), (27, 0.75)]


def test_offline_what_was_written_to_another_file_is_there(wandb: MagicMock, tmp_path: Path) -> None:
    kept = tmp_path / "wandb" / "offline-run-20261128_160849-0123456789abcdef"
    kept.mkdir(parents=True)
    (kept / "run-0123456789abcdef.wandb").touch()
    TestContract().whole_run(TestContract().build(), tmp_path, finished=2)
    assert logged(wandb) == [(27, 0.75)]


def test_options_and_variables(wandb: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Chosen(TrackerContract):
        spec, options = "wandb", {"mode": "offline", "entity": "lab", "group": "seeds", "tags": ["a"]}

    monkeypatch.setenv("WANDB_PROJECT", "birds")
    Chosen().whole_run(Chosen().build(), tmp_path)
    asked = wandb.init.call_args.kwargs
    assert [asked[name] for name in ("project", "mode", "entity", "group", "tags")] == ["birds", "offline", "lab", "seeds", ["a"]]
