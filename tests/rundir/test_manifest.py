"""Every file of a run is known by its hash, before and after a crash at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distillctl.errors import DataError
from distillctl.files import sha256
from distillctl.rundir.manifest import NAME, Manifest


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return sha256(folder / name)


def test_a_file_that_is_what_was_written_may_be_used(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.expect({"a": write(tmp_path, "a", b"content")})
    assert manifest.problem("a") == ""
    assert manifest.check("a") == tmp_path / "a"


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
    manifest = Manifest(tmp_path)
    manifest.expect({"a": write(tmp_path, "a", b"content")})
    if content is None:
        (tmp_path / "a").unlink()
    else:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError) as caught:
        manifest.check("a")
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"`{tmp_path / 'a'}` {words}")


def test_every_single_flipped_bit_is_seen(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    content = bytes(range(24))
    manifest.expect({"a": write(tmp_path, "a", content)})
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a").write_bytes(changed)
        assert manifest.problem("a"), f"bit {bit}"


def test_the_old_file_and_the_expected_one_are_both_good_until_it_is_settled(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.expect({"a": write(tmp_path, "a", b"old")})
    new = write(tmp_path, "b", b"new")
    manifest.expect({"a": new})
    assert manifest.problem("a") == ""
    assert manifest.newest("a") == new
    (tmp_path / "b").replace(tmp_path / "a")
    assert manifest.problem("a") == ""
    manifest.settle()
    (tmp_path / "a").write_bytes(b"old")
    assert manifest.problem("a"), "an older file of this run in the place of a newer one is foreign, too"


def test_a_crash_before_a_file_came_for_the_first_time_is_not_its_loss(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.expect({"a": "f" * 64})
    manifest.settle()
    assert manifest.problem("a") == ""
    digest = write(tmp_path, "b", b"content")
    manifest.expect({"a": digest})
    (tmp_path / "b").replace(tmp_path / "a")
    manifest.arrived("a")
    (tmp_path / "a").unlink()
    manifest.settle()
    assert manifest.problem("a") == "is gone"


def test_a_crash_while_the_first_file_is_replaced_that_no_manifest_knew(tmp_path: Path) -> None:
    """Of a run of an older version, or whose manifest was deleted."""
    manifest = Manifest(tmp_path)
    write(tmp_path, "a", b"old")
    manifest.expect({"a": "f" * 64})
    manifest.settle()
    assert manifest.problem("a") == ""


def test_what_never_came_is_forgotten(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    old = write(tmp_path, "a", b"old")
    manifest.expect({"a": old})
    manifest.expect({"a": "f" * 64})
    manifest.settle()
    assert manifest.newest("a") == old
    assert json.loads((tmp_path / NAME).read_text()) == {"a": [old]}


def test_settling_makes_a_damaged_or_missing_file_no_better(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for name in ("damaged", "missing"):
        manifest.expect({name: write(tmp_path, name, b"content")})
    (tmp_path / "damaged").write_bytes(b"x")
    (tmp_path / "missing").unlink()
    manifest.settle()
    assert manifest.problem("damaged")
    assert manifest.problem("missing") == "is gone"


def test_runs_of_older_versions_have_none_and_nothing_is_checked(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    digest = write(tmp_path, "a", b"content")
    manifest.settle()
    assert not (tmp_path / NAME).exists()
    assert manifest.problem("a") == ""
    assert manifest.newest("a") == digest


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"a": "x"}', '{"a": [1]}', '"text"', "\xff", "[" * 100_000, pytest.param(" " * (17 << 20) + "{}", id="endless")],
)
def test_a_damaged_manifest_is_said_and_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="is damaged, so that no file of the run can be checked") as caught:
        Manifest(tmp_path).problem("a")
    assert "without it" in caught.value.problems[0].hint
