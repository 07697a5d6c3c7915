"""Every file of a run is known by its hash, before and after a crash at any moment."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from distillctl.errors import DataError
from distillctl.rundir import digests


class Crash(BaseException):
    """The process ends here."""


def write(path: Path, content: bytes, *, crash: str = "") -> None:
    """As everybody does who writes; with a crash before or after the instant in which the file takes its place."""
    with digests.replacing(path, hashlib.sha256(content).hexdigest()):
        if crash == "before":
            raise Crash
        path.write_bytes(content)
        if crash == "after":
            raise Crash


def test_a_file_that_is_what_was_written_may_be_used(tmp_path: Path) -> None:
    for content in (b"content", b"another"):
        write(tmp_path / "a", content)
        assert digests.problem(tmp_path / "a") == ""
        assert digests.check(tmp_path / "a") == tmp_path / "a"
        assert (tmp_path / "a.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  a\n"


@pytest.mark.parametrize("crash", ["", "before", "after"])
def test_the_usual_tool_reads_it(tmp_path: Path, crash: str) -> None:
    write(tmp_path / "a", b"old")
    if crash:
        with pytest.raises(Crash):
            write(tmp_path / "a", b"new", crash=crash)
    done = subprocess.run(["sha256sum", "-c", "a.sha256"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == ("a: FAILED\n" if crash == "before" else "a: OK\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"contenu", "is not the file that this run wrote: it is damaged, or it comes from elsewhere"),
        (b"conten", "is not the file"),
        (b"", "is not the file"),
        (b"content and more", "is not the file"),
        (None, "is gone"),
    ],
)
def test_flipped_cut_longer_and_missing_files_are_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    write(tmp_path / "a", b"content")
    if content is None:
        (tmp_path / "a").unlink()
    else:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError) as caught:
        digests.check(tmp_path / "a")
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"`{tmp_path / 'a'}` {words}")


def test_every_single_flipped_bit_is_seen(tmp_path: Path) -> None:
    content = bytes(range(24))
    write(tmp_path / "a", content)
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a").write_bytes(changed)
        assert digests.problem(tmp_path / "a"), f"bit {bit}"


def test_an_older_file_of_the_run_in_the_place_of_a_newer_one_is_foreign_too(tmp_path: Path) -> None:
    write(tmp_path / "a", b"old")
    write(tmp_path / "a", b"new")
    (tmp_path / "a").write_bytes(b"old")
    assert digests.problem(tmp_path / "a")


@pytest.mark.parametrize(
    "crashes", [["before"], ["after"], ["before", "before"], ["after", "before", "before"], ["before", "after", "before"]]
)
def test_after_any_crashes_the_file_that_is_there_is_good_and_no_other(tmp_path: Path, crashes: list[str]) -> None:
    path = tmp_path / "a"
    write(path, b"0")
    for number, crash in enumerate(crashes, start=1):
        with pytest.raises(Crash):
            write(path, str(number).encode(), crash=crash)
        assert digests.problem(path) == "", number
        assert digests.current(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    there = path.read_bytes()
    path.write_bytes(b"x")
    assert digests.problem(path)
    path.write_bytes(there)
    write(path, b"last")
    path.write_bytes(there)
    assert digests.problem(path)


def test_a_crash_before_a_file_came_for_the_first_time_is_not_its_loss(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Crash):
            write(tmp_path / "a", b"content", crash="before")
        assert digests.problem(tmp_path / "a") == ""
    write(tmp_path / "a", b"content")
    (tmp_path / "a").unlink()
    assert digests.problem(tmp_path / "a") == "is gone"


def test_a_file_without_a_hash_is_not_checked_but_known_from_its_replacement_on(tmp_path: Path) -> None:
    """It is one of a run of an older version, or its hash was deleted."""
    (tmp_path / "a").write_bytes(b"old")
    assert digests.problem(tmp_path / "a") == ""
    assert digests.current(tmp_path / "a") == hashlib.sha256(b"old").hexdigest()
    with pytest.raises(Crash):
        write(tmp_path / "a", b"new", crash="before")
    assert digests.problem(tmp_path / "a") == ""
    (tmp_path / "a").write_bytes(b"x")
    assert digests.problem(tmp_path / "a")


GOOD = f"{'a' * 64}  a\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        GOOD[:-1],
        GOOD[1:],
        GOOD * 2,
        f"{GOOD}# before: x\n",
        f"{GOOD}# before: none",
        "\xff" * 70,
        pytest.param(" " * 9999, id="long"),
    ],
)
def test_a_damaged_hash_is_said_and_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a.sha256").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.sha256` is damaged, so that `a` cannot be checked") as caught:
        digests.problem(tmp_path / "a")
    assert "without it" in caught.value.problems[0].hint
