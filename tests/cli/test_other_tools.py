"""What people type who come from other tools is answered with what does it here."""

from __future__ import annotations

import re

import pytest

from distillctl.cli import app, run
from distillctl.cli.other_tools import COMMANDS, OF_TRAIN, OPTIONS
from distillctl.profile.schema import DatasetTable, MethodTable, OptimizerTable, ScheduleTable, StudentTable, TrainTable

PLUGINS = {("optimizer", "lr"), ("optimizer", "weight_decay"), ("method", "temperature"), ("dataset", "root")}
"""Keys that optimizers, methods and data sets have, and not the core."""


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_of_other_tools_are_told_what_does_it_here(name, capsys):
    assert run([name]) == 2
    assert f"no command is called `{name}`\n\nhint: {COMMANDS[name]}" in capsys.readouterr().err
    assert name not in app.COMMANDS


OWN = {("eval", "--model"), ("eval", "--data"), ("eval", "--weights")}
"""Options of a command that mean something else in `train`."""


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command in ("train", "eval") for option in OPTIONS if (command, option) not in OWN]
)
def test_options_of_other_tools_are_told_what_does_it_here(command, option, capsys):
    assert run([command, "x", option, "3"]) == 2
    error = capsys.readouterr().err
    assert f"no option is called `{option}`\n\nhint: {OPTIONS[option]}; `distillctl {command} --help`" in error


def test_the_keys_that_are_named_for_other_tools_options_exist():
    tables = {
        "train": TrainTable,
        "schedule": ScheduleTable,
        "student": StudentTable,
        "dataset": DatasetTable,
        "optimizer": OptimizerTable,
        "method": MethodTable,
    }
    for text in OPTIONS.values():
        if found := re.search(r"--set (\w+)\.(\w+)=", text):
            table, key = found.groups()
            assert key in tables[table].model_fields or (table, key) in PLUGINS


def test_a_run_that_is_named_without_its_folder_or_by_its_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "flowers-1a2b").mkdir(parents=True)
    (tmp_path / "runs" / "flowers-1a2b" / "run.json").write_text('{"state": "finished"}')
    (tmp_path / "flowers.toml").touch()
    for name, hint in (
        ("flowers-1a2b", "did you mean `runs/flowers-1a2b`?"),
        ("flowers.toml", "the newest run of that profile is `runs/flowers-1a2b`"),
        ("birds.toml", "`distillctl train birds.toml` makes a run of that profile"),
    ):
        assert run(["eval", name]) == 2
        assert hint in capsys.readouterr().err


def test_options_of_train_that_other_commands_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in OF_TRAIN:
        assert run(["show", "kd", option]) == 2
        assert f"no option is called `{option}`\n\nhint: it is one of `distillctl train`; " in capsys.readouterr().err
        run(["train", "nowhere.toml", option, "--help"])
        assert "no option is called" not in capsys.readouterr().err


def test_a_key_without_set_and_a_profile_without_train(capsys):
    assert run(["train", "flowers.toml", "train.epochs=3"]) == 2
    assert "hint: a key of the profile is set by `--set KEY=VALUE`; " in capsys.readouterr().err
    assert run(["flowers.toml"]) == 2
    assert "hint: `distillctl train flowers.toml` trains by it" in capsys.readouterr().err
