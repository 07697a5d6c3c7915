from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from distillctl.errors import DataError, ProfileError
from distillctl.files import sha256, write_atomically, write_text
from distillctl.rundir import digests
from distillctl.rundir.directory import RunDirectory, place, runs_in
from distillctl.rundir.lock import locked

A, B = "a" * 64, "b" * 64


def make(path: Path, digest: str = A, state: str = "running") -> RunDirectory:
    run = RunDirectory.create(path, profile=b"x", resolved="", environment={}, state={"digest": digest})
    run.update(state=state)
    return run


def test_place_is_named_after_profile_and_digest_and_found_again(tmp_path: Path) -> None:
    path, run = place("cub", A, root=tmp_path)
    assert (path, run) == (tmp_path / "cub-aaaaaaaa", None)
    make(path)
    path, run = place("cub", A, root=tmp_path)
    assert run is not None
    assert run.path == path == tmp_path / "cub-aaaaaaaa"
    assert place("cub", B, root=tmp_path)[1] is None


def test_fresh_goes_beside_and_is_what_the_next_command_continues(tmp_path: Path) -> None:
    make(place("cub", A, root=tmp_path)[0])
    path, run = place("cub", A, root=tmp_path, fresh=True)
    assert (path.name, run) == ("cub-aaaaaaaa-2", None)
    make(path)
    assert place("cub", A, root=tmp_path)[0] == path
    assert place("cub", A, root=tmp_path, fresh=True)[0].name == "cub-aaaaaaaa-3"


def test_out_takes_new_empty_and_own_folders_only(tmp_path: Path) -> None:
    assert place("x", A, out=tmp_path / "new") == (tmp_path / "new", None)
    (tmp_path / "empty").mkdir()
    assert place("x", A, out=tmp_path / "empty")[1] is None
    make(tmp_path / "own")
    found = place("x", A, out=tmp_path / "own")[1]
    assert found is not None
    with pytest.raises(ProfileError, match="a run already"):
        place("x", A, out=tmp_path / "own", fresh=True)
    with pytest.raises(ProfileError, match="not a run directory"):
        place("x", A, out=tmp_path)


def test_records_end_where_a_crash_cut_them(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert run.records() == []
    for epoch in (1, 2, 3):
        run.append({"epoch": epoch})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epo')
    assert [r["epoch"] for r in run.records()] == [1, 2, 3]
    run.keep_records(2)
    assert (run.path / "metrics.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


@pytest.mark.parametrize("operation", range(12))
def test_a_folder_whose_making_was_cut_short_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: int) -> None:
    """After any number of operations on files the process is dead, and does nothing any more."""

    class Dead(BaseException):
        pass

    with locked(tmp_path / "run"):  # the lock comes first, and stays
        (tmp_path / "run" / "other").touch()
    (tmp_path / "run" / "other").unlink()
    done = [0]

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            done[0] += 1
            if done[0] > operation:
                raise Dead
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "open", "replace", "unlink"):
            patch.setattr(Path, name, guarded(getattr(Path, name)))
        patch.setattr(os, "fsync", guarded(os.fsync))
        with suppress(Dead):
            make(tmp_path / "run")
    for found in (place("x", A, out=tmp_path / "run"), place("run", "", root=tmp_path, out=None)):
        assert (found[1] is not None) == (tmp_path / "run" / "run.json").is_file() or found[0] != tmp_path / "run"
    with locked(tmp_path / "run"):
        run = make(tmp_path / "run")
        run.tidy()
    names = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*")}
    assert names == {"checkpoints", "profile.toml", "resolved.toml", "environment.json", "run.json", "run.lock"}


def test_what_a_killed_process_left_half_written_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    kept = {"notes.tmp", ".hidden", "checkpoints/last.pt", "checkpoints/last.pt.left", "checkpoints/mine.tmp"}
    litter = {".run.json.17.tmp", "checkpoints/.last.pt.4711.tmp", "checkpoints/.previous.pt.4711.tmp"}
    for name in kept | litter:
        (run.path / name).touch()
    run.tidy()
    assert all((run.path / name).exists() for name in kept)
    assert not any((run.path / name).exists() for name in litter)


@pytest.mark.parametrize("name", ["mine.txt", ".profile", "checkpoints/last.pt", "student.safetensors", "metrics.jsonl"])
def test_a_folder_with_anything_else_is_nobodys_half_made_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for first in ("run.lock", "profile.toml"):
        (tmp_path / "run" / first).touch()
    assert place("x", A, out=tmp_path / "run")[1] is None
    (tmp_path / "run" / name).touch()
    with pytest.raises(ProfileError, match="exists and is not a run directory"):
        place("x", A, out=tmp_path / "run")


def test_damaged_or_missing_runs_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run directory"):
        RunDirectory.open(tmp_path)
    for text, message in (("{", "cannot be read: Expecting property name"), ("[]", "does not describe a run")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match=message):
            RunDirectory.open(tmp_path).info()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1}', "does not describe a run$"),
        ('{"state": 3}', "does not describe a run$"),
        ('{"state": "running", "digests": 5}', "does not describe a run: `digests` is not as a run writes it"),
        ('{"state": "running", "format": "1"}', "`format` is not as a run writes it"),
        ('{"state": "running", "format": 99}', "was written by a newer version of distillctl"),
        ('{"state": "finished", "epoch": null}', "`epoch` is not as a run writes it"),
        ('{"state": "running", "checksum": "x"}', "was changed by somebody else than its run"),
    ],
)
def test_a_description_that_is_not_what_a_run_writes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError) as caught:
        RunDirectory.open(tmp_path).info()
    assert re.search(message, caught.value.problems[0].message)


def test_any_change_of_the_description_is_noticed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.update(epoch=4, result={"best": {"top1": 0.5}})
    text = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(text.replace("0.5", "0.9"))
    with pytest.raises(DataError, match="was changed by somebody else than its run"):
        run.info()
    (run.path / "run.json").write_text(text)
    assert run.info()["epoch"] == 4


def test_any_change_of_the_resolved_profile_is_noticed(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert run.check_resolved() == run.resolved
    run.resolved.write_text(run.resolved.read_text() + " ")
    with pytest.raises(DataError, match=r"resolved\.toml` was changed by somebody else than its run"):
        run.check_resolved()
    run.resolved.unlink()
    with pytest.raises(DataError, match=r"resolved\.toml` cannot be read"):
        run.check_resolved()


def test_runs_come_newest_first(tmp_path: Path) -> None:
    first, second = make(tmp_path / "one"), make(tmp_path / "two")
    first.update(state="finished")
    assert [r.path.name for r in runs_in(tmp_path)] == ["one", "two"]
    assert first.finished
    assert not second.finished


def test_update_keeps_the_other_keys(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.update(epoch=4)
    info = json.loads((run.path / "run.json").read_text())
    assert (info["epoch"], info["digest"]) == (4, A)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert sha256(target) == "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"


def test_json_holds_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    make(tmp_path / "run").update(command=["--out", "f\udce4 ü"])
    assert RunDirectory.open(tmp_path / "run").info()["command"] == ["--out", "f\udce4 ü"]


@pytest.mark.parametrize("text", ["[" * 100_000, " " * (17 << 20) + "{}", "[]", "\xff"], ids=["nested", "endless", "a list", "no UTF-8"])
def test_a_description_from_elsewhere_that_is_none(tmp_path: Path, text: str) -> None:
    run = make(tmp_path / "run")
    (run.path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"run.json. (cannot be read|does not describe a run)"):
        run.info()


def test_a_file_that_is_not_what_was_written_is_not_used(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    with digests.replacing(run.best, hashlib.sha256(b"whole").hexdigest()):
        run.best.write_bytes(b"whole")
    assert digests.check(run.best) == run.best
    run.best.write_bytes(b"other")
    with pytest.raises(DataError, match="is not the file that this run wrote"):
        digests.check(run.best)


def test_a_line_of_the_record_that_is_not_text_ends_it(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.append({"epoch": 1})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": "\xff\xfe"}\n')
    assert run.records() == [{"epoch": 1}]
