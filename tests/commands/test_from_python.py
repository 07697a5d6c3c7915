"""The functions do what the commands do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import distillctl
from distillctl import evaluate, load_student, train
from distillctl.api.tracker import Tracker
from distillctl.cli import run as command
from distillctl.commands.train import Result
from distillctl.errors import PluginError, ProfileError

PROFILE = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[method]
name = "none"
[train]
epochs = 1
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("python")
    (folder / "p.toml").write_text(PROFILE)
    return folder, train(str(folder / "p.toml"), overrides={"train.epochs": 2, "optimizer.lr": 0.02}, seed=3, out=str(folder / "run"))


def test_train_is_what_the_command_does(finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
    folder, result = finished
    assert result.path == folder / "run"
    assert not result.already
    options = ["--set", "train.epochs=2", "--set", "optimizer.lr=0.02", "--seed", "3"]
    assert command(["train", str(folder / "p.toml"), *options, "--out", str(folder / "other"), "--quiet"]) == 0
    one, other = (json.loads((folder / name / "run.json").read_text()) for name in ("run", "other"))
    assert one["result"] == other["result"] == result.summary
    assert one["digest"] == other["digest"]
    assert (folder / "run/student.safetensors").read_bytes() == (folder / "other/student.safetensors").read_bytes()
    assert train(folder / "p.toml", overrides=options[1:4:2], seed=3, out=folder / "run").already


def test_nothing_is_printed_and_a_tracker_hears(finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = finished
    heard: list[int] = []

    class Ear(Tracker):
        def epoch(self, record: object) -> None:
            heard.append(1)

    train(folder / "p.toml", method="none", out=folder / "quiet", tracker=Ear())
    assert heard == [1]
    assert capsys.readouterr().out == ""


def test_evaluate_is_what_the_command_does(finished: tuple[Path, Result], capsys: pytest.CaptureFixture[str]) -> None:
    _, result = finished
    report = evaluate(result.path, split="val", checkpoint="last")
    assert command(["eval", str(result.path), "--split", "val", "--checkpoint", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report.as_dict()
    assert evaluate(root=result.path.parent).figures["top1"] > 0  # the newest below a folder


def test_evaluate_a_network_of_no_run(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    torch.save(load_student(result.path).model.state_dict(), folder / "w.pt")
    report = evaluate(model="resnet8", checkpoint=folder / "w.pt", data=result.path, overrides={"evaluate.batch_size": 7}, split="test")
    assert report.figures["top1"] == result.summary["best"]["top1"]


@pytest.mark.parametrize(
    "options", [{"weights": "DEFAULT"}, {"data": "p.toml"}, {"model": "resnet8"}, {"model": "resnet8", "run": "runs/a"}]
)
def test_what_does_not_go_together(options: dict[str, str]) -> None:
    with pytest.raises(ProfileError):
        evaluate(**options)  # type: ignore[arg-type]


def test_code_of_a_profile_is_refused_and_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ("import torch", "class Net(torch.nn.Sequential):", "    def __init__(self, num_classes):")
    (tmp_path / "nets.py").write_text(
        "\n".join((*lines, "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))"))
    )
    (tmp_path / "p.toml").write_text(PROFILE.replace('"resnet8"', '"file:nets.py:Net"'))
    with pytest.raises((PluginError, ProfileError), match="allow"):
        train(tmp_path / "p.toml")
    result = train(tmp_path / "p.toml", allow_code=True)
    assert evaluate(result.path, allow_code=True).figures["count"] == 445


def test_the_names_do_not_hide_their_modules() -> None:
    from distillctl.commands import train as module

    assert distillctl.train is train
    assert module is not train
