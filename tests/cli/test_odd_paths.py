"""Paths that no file can have, or that are something else than a file, are answered in a sentence and never with a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distillctl.cli import run

LONG = "x" * 300
PROFILE = '[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n{}[train]\nepochs = 1\n'
TEACHER = '[teacher]\nname = "resnet8"\ncheckpoint = {!r}\n[method]\nname = "kd"\n'


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(PROFILE.format(""))
    (tmp_path / "dead").symlink_to("nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", f"{LONG}.toml"], ["train", "p.toml", "--out", LONG], ["train", "p.toml", "--teacher", LONG],
        ["train", "p.toml", "--teacher", f"{LONG}.pt"], ["train", "p.toml", "--dry-run", "--out", LONG],
        ["check", f"{LONG}.toml"], ["check", "p.toml", "--set", f'student.checkpoint="{LONG}"'],
        ["eval", LONG], ["eval", "--checkpoint", LONG], ["eval", "p.toml", "--checkpoint", LONG], ["eval", "--classes", f"{LONG}.csv"],
        ["bench", f"{LONG}.toml"], ["init", "--out", f"{LONG}.toml"], ["show", LONG], [LONG], ["launch", f"{LONG}.toml"],
        ["train", "p.toml", "--teacher", "~nosuchuser/t.pt"], ["check", "p.toml", "--set", "student.checkpoint=~nosuchuser/t.pt"],
        ["train", "p.toml", "--set", f'dataset={{name="imagefolder", root="{LONG}"}}'],
        ["train", "a\0b.toml"], ["eval", "a\0b"], ["train", "p.toml", "--teacher", "a\0b"],
    ],
    ids=lambda arguments: " ".join(a.replace(LONG, "LONG").replace("\0", "NUL") for a in arguments),
)  # fmt: skip
def test_names_that_no_file_can_have(inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) in (1, 2, 3)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error) < 1500


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dead", "`{}` is a link that leads nowhere"),
        pytest.param("pipe", "`{}` is a pipe or device, not a file", marks=pytest.mark.posix),
        ("/dev/null", "is a pipe or device"),
    ],
)
def test_something_else_than_a_file(inside: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    path = str(inside / name) if "/" not in name else name
    for arguments in (
        ["eval", "--checkpoint", path],
        ["check", "p.toml", "--set", f"student.checkpoint={path}"],
        ["check", "p.toml", "--set", f'teacher={{name="resnet8", checkpoint="{path}"}}', "--method", "kd"],
    ):
        assert run(arguments) == 2
        error = capsys.readouterr().err
        assert words.format(path) in error
        assert "did you mean" not in error
    assert run(["check", path]) == 2
    assert ("leads nowhere" if name == "dead" else "pipe or device") in capsys.readouterr().err


def test_a_current_directory_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert run(["check", "p.toml"]) == 3
    assert "the current directory does not exist any more" in capsys.readouterr().err


def test_a_cache_of_a_user_that_there_is_not(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from distillctl.testing.trees import write_tree

    monkeypatch.setenv("DISTILLCTL_CACHE", "~nosuchuser/cache")
    write_tree(inside / "photos", {"a": 3, "b": 3})
    data = f'dataset={{name="imagefolder", root="{inside / "photos"}", image_size=16}}'
    assert run(["train", "p.toml", "--set", data, "--set", "dataset.limit=0", "--device", "cpu"]) == 2
    assert "a path begins with the home folder of a user who has none" in capsys.readouterr().err
