"""Profiles that are right: what comes out, where each value comes from, and the way back."""

from __future__ import annotations

import pytest

from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import EvaluateTable, ScheduleTable
from distillctl.profile.writing import write_toml

TWO = '[[method]]\nname = "dk"\n\n[[method]]\nname = "feat"\nweight = 3'


def test_smallest_profile(read, text):
    profile = read(text(top="", teacher=None, method=None))
    assert profile.seed == 0
    assert profile.name == "profile"
    assert profile.teacher is None
    assert [m.spec.name for m in profile.methods] == ["none"]
    assert profile.task_weight == 1.0
    assert profile.optimizer.spec.name == "sgd"
    assert profile.schedule == ScheduleTable()
    assert profile.evaluate == EvaluateTable()
    assert profile.resolved["method"]["name"] == "none"
    assert "teacher" not in profile.resolved


def test_values_and_origins(read, text):
    profile = read(text(train="epochs = 2\nprecision = 'bf16'"), overrides=["train.batch_size=8", "optimizer.lr=0.5"])
    assert profile.text == text(train="epochs = 2\nprecision = 'bf16'").encode()
    assert (profile.train.epochs, profile.train.precision, profile.train.batch_size) == (2, "bf16", 8)
    assert profile.optimizer.options.lr == 0.5
    assert profile.methods[0].options.temperature == 4.0
    assert (profile.methods[0].table.weight, profile.task_weight) == (0.9, 0.1)
    origins = profile.origins
    assert origins["seed"] == "profile:1"
    assert origins["train.epochs"] == "profile:18"
    assert origins["train.batch_size"] == "command line"
    assert origins["optimizer.lr"] == "command line"
    assert origins["optimizer.momentum"] == "default"
    assert origins["method.weight"] == "default"
    assert set(origins) == {"seed"} | {f"{t}.{k}" for t, table in profile.resolved.items() if t != "seed" for k in table}


def test_resolved_holds_absolute_paths_and_nothing_unset(read, folder):
    resolved = read().resolved
    assert resolved["teacher"]["checkpoint"] == str(folder / "teacher.pth")
    assert resolved["dataset"]["root"] == "images"
    assert "depth" not in resolved["teacher"]
    assert not {"run", "profile", "weights", "overrides"} & set(resolved["teacher"])
    assert not {"weights", "checkpoint"} & set(resolved["student"])


@pytest.mark.parametrize(
    ("changes", "overrides"),
    [
        ({}, []),
        ({"teacher": None, "method": None}, []),
        ({"method": TWO}, []),
        ({"method": 'name = "wrap"\n[method.inner]\nname = "dk"\nbeta = 3'}, []),
        ({"method": 'name = "wrap"\n[method.inner]\nname = "around"\n[method.inner.inner]\nname = "dk"\nbeta = 3'}, []),
        ({"method": 'name = "kd"\ntemperature = {teacher = 4, student = 2}'}, ["schedule.name=step", "schedule.milestones=[0.5, 0.75]"]),
        ({"teacher": 'profile = "teacher.toml"\noverrides = {"train.epochs" = 1}'}, ["seed=4294967295"]),
        ({"teacher": 'run = "runs/done"'}, ["train.workers=2", "dataset.root=späte Bilder/é"]),
        ({"teacher": 'name = "big"\nweights = "V2"\ndropout = 0.5'}, ["student.name=two/vgg13"]),
    ],
)
def test_resolved_reads_back_to_the_same_run(read, text, folder, registry, changes, overrides):
    profile = read(text(**changes), overrides=overrides)
    run = folder / "elsewhere"
    run.mkdir()
    (run / "resolved.toml").write_text(write_toml(profile.resolved), encoding="utf-8")
    (folder / "teacher.pth").unlink()
    (folder / "teacher.toml").unlink()
    for again in (from_resolved(run, registry), from_resolved(run / "resolved.toml", registry)):
        assert again.digest == profile.digest
        assert again.resolved == profile.resolved
        assert again.methods == profile.methods
        assert again.teacher == profile.teacher
        assert again.task_weight == profile.task_weight


def test_digest_depends_on_values_alone(read, text):
    first = read(text())
    assert read(text(train="# a comment\nbatch_size = 64\nepochs = 2")).digest == first.digest
    assert read(text(method="name = 'kd'\nweight = 0.9")).digest == first.digest
    assert read(text(), seed=2).digest != first.digest
    assert read(text(train="epochs = 3")).digest != first.digest


def test_windows_line_ends(read, text):
    assert read(text().replace("\n", "\r\n")).digest == read(text()).digest


def test_seed_from_the_command_line(read):
    profile = read(seed=7)
    assert (profile.seed, profile.resolved["seed"], profile.origins["seed"]) == (7, 7, "command line")
