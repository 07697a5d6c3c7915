"""`[teacher]`: the ways on the command line, and the profile that trains one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl import ProfileError


def test_ways_on_the_command_line(read, folder):
    assert read(teacher="runs/done").teacher.table.run == folder / "runs" / "done"
    by_profile = read(teacher="teacher.toml").teacher
    assert (by_profile.table.profile, by_profile.spec, by_profile.table.name) == (folder / "teacher.toml", None, "")
    (folder / "other.pt").write_bytes(b"")
    by_file = read(teacher=Path("other.pt"), overrides=["teacher.dropout=0.5"]).teacher
    assert (by_file.table.checkpoint, by_file.spec.name, by_file.options.dropout) == (folder / "other.pt", "big", 0.5)
    assert read(teacher="runs/done").origins["teacher.run"] == "command line"


def test_profile_is_looked_up_beside_this_one(read, text, folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "teacher.toml").write_text(text(student='name = "big"', teacher=None, method=None))
    profile = read(text(teacher='profile = "teacher.toml"'), name="deep/profile.toml")
    assert profile.teacher.table.profile == folder / "deep" / "teacher.toml"
    profile = read(name="deep/profile.toml", overrides=["teacher.profile=teacher.toml"])
    assert profile.teacher.table.profile == folder / "teacher.toml"


def test_overrides_reach_the_teachers_profile(read, text):
    nested = read(text(teacher='profile = "teacher.toml"\noverrides = {train = {epochs = 1}}'))
    assert nested.teacher.table.overrides == {"train": {"epochs": 1}}
    by_command_line = read(text(teacher='profile = "teacher.toml"'), overrides=["teacher.overrides.train.epochs=1"])
    assert by_command_line.teacher.table.overrides == {"train.epochs": 1}


def test_untrained_stays_with_another_way(read, text):
    content = text(teacher='name = "big"\ncheckpoint = "teacher.pth"\nallow_untrained = true')
    assert read(content, teacher="runs/done").teacher.table.allow_untrained


def test_teachers_in_a_circle(read, text, folder):
    (folder / "a.toml").write_text(text(teacher='profile = "b.toml"'))
    (folder / "b.toml").write_text(text(teacher='profile = "a.toml"'))
    with pytest.raises(ProfileError, match="leads back"):
        read(text(teacher='profile = "a.toml"'))
