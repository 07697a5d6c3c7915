"""Checkpoints against crashes, damage and full disks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl import files
from distillctl.engine import checkpoint
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.engine.state import restore_student
from distillctl.errors import DataError, MachineError
from distillctl.rundir import digests
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


def new_run(path: Path) -> RunDirectory:
    return RunDirectory.create(path, profile=b"", resolved="", environment={}, state={"digest": "d" * 64})


def state(number: int) -> dict[str, Any]:
    return {"position": {"epoch": number, "step": 0}, "student": {"weights": torch.full((100,), float(number))}}


def saved(run: RunDirectory, count: int) -> RunDirectory:
    for number in range(1, count + 1):
        checkpoint.save_last(run, state(number))
    return run


def number_of(found: dict[str, Any] | None) -> int:
    assert found is not None
    assert torch.equal(found["student"]["weights"], torch.full((100,), float(found["position"]["epoch"])))
    return int(found["position"]["epoch"])


def weights(experiment: Experiment) -> Tensor:
    return torch.cat([v.flatten().double() for v in experiment.model.state_dict().values()])


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(operation: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """From the n-th operation on files on nothing is done any more, as nothing is done by a process that is dead."""
    done = [0]

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            done[0] += 1
            if done[0] > operation:
                raise Crash
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "link", "fsync", "unlink"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr(Path, "replace", guarded(Path.replace))
        patch.setattr(Path, "unlink", guarded(Path.unlink))
        patch.setattr(Path, "open", guarded(Path.open))
        yield done


def test_the_newest_state_and_the_one_before_are_there(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    assert checkpoint.load_newest(run) is None
    saved(run, 3)
    assert number_of(checkpoint.load_newest(run)) == 3
    assert number_of(checkpoint.load(digests.check(run.previous))) == 2
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [
        "last.pt",
        "last.pt.sha256",
        "previous.pt",
        "previous.pt.sha256",
    ]


def test_a_crash_between_any_two_operations_leaves_the_state_before_or_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run can be saved on, with the one before it kept; what was half written is swept away."""
    operation = crashes = 0
    while True:
        run = saved(new_run(tmp_path / str(operation)), 2)
        try:
            with crash_at(operation, monkeypatch):
                checkpoint.save_last(run, state(3))
            break
        except Crash:
            crashes += 1
        newest = number_of(checkpoint.load_newest(run))
        assert newest in (2, 3)
        assert number_of(checkpoint.load(digests.check(run.previous))) in (newest - 1, newest)
        run.tidy()
        checkpoint.save_last(run, state(4))
        assert number_of(checkpoint.load_newest(run)) == 4
        assert number_of(checkpoint.load(digests.check(run.previous))) == newest
        assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [
            "last.pt",
            "last.pt.sha256",
            "previous.pt",
            "previous.pt.sha256",
        ]
        operation += 1
    assert crashes > 8


def test_a_crash_while_going_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = crashes = 0
    while True:
        run = saved(new_run(tmp_path / str(operation)), 3)
        run.last.write_bytes(b"damaged")
        try:
            with crash_at(operation, monkeypatch):
                assert number_of(checkpoint.load_newest(run, previous=True)) == 2
            break
        except Crash:
            crashes += 1
        if digests.problem(run.last) or not run.last.is_file():
            with pytest.raises(DataError, match="`--from-previous` continues from it"):
                checkpoint.load_newest(run)
            assert number_of(checkpoint.load_newest(run, previous=True)) == 2
        assert number_of(checkpoint.load_newest(run)) == 2
        checkpoint.save_last(run, state(3))
        assert number_of(checkpoint.load_newest(run)) == 3
        operation += 1
    assert crashes > 4


@pytest.mark.slow
def test_a_run_that_crashes_at_any_operation_ends_with_the_same_bytes(
    experiment: Make, watcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the making of the directory to the last checkpoint; `best.pt` and `metrics.jsonl` are in it."""
    settings = {"epochs": 2, "ema": 0.9, "keep_every": 1, "save_every": 0.0}
    straight = experiment(**settings)
    Loop(straight, new_run(tmp_path / "straight"), watcher).train()
    operation = 0
    while True:
        run = new_run(tmp_path / "run")
        try:
            with crash_at(operation, monkeypatch):
                Loop(experiment(**settings), run, watcher).train()
            break
        except Crash:
            run.tidy()
        second = experiment(**settings)
        Loop(second, run, watcher).train()
        assert torch.equal(weights(straight), weights(second)), operation
        names = [{p.name for p in (tmp_path / name).rglob("*")} for name in ("straight", "run")]
        assert names[0] == names[1], operation
        times = ("seconds", "per_second")
        lines = [RunDirectory(tmp_path / name).records() for name in ("straight", "run")]
        records = [[{k: v for k, v in line.items() if not k.endswith(times)} for line in run] for run in lines]
        assert records[0] == records[1], operation
        for name in ("best", "epoch-0001", "epoch-0002"):
            found, expected = (checkpoint.load(tmp_path / n / "checkpoints" / f"{name}.pt")["student"] for n in ("run", "straight"))
            assert all(torch.equal(found[k], expected[k]) for k in expected), (operation, name)
        shutil.rmtree(run.path)
        operation += 13  # every moment of a step comes up in one of the steps
    assert operation > 100


def unchecked(run: RunDirectory) -> None:
    """As an older version left it."""
    for path in run.path.rglob(f"*{digests.SUFFIX}"):
        path.unlink()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    """A good checkpoint of another run of the same profile."""
    shutil.copy(saved(new_run(path.parents[2] / "other"), 7).last, path)


DAMAGES = {
    flip: "is not the file that this run wrote",
    cut: "is not the file that this run wrote",
    empty: "is not the file that this run wrote",
    foreign: "it comes from elsewhere",
    Path.unlink: "is gone",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_checkpoint_is_refused_and_the_older_one_offered(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    run = saved(new_run(tmp_path / "run"), 3)
    damage(run.last)
    with pytest.raises(DataError) as caught:
        checkpoint.load_newest(run)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"the checkpoint `{run.last}` ")
    assert DAMAGES[damage] in problem.message
    assert problem.hint == "the one before it is whole (2 epochs and 0 steps done): `--from-previous` continues from it"
    assert number_of(checkpoint.load_newest(run, previous=True)) == 2
    assert number_of(checkpoint.load_newest(run)) == 2
    left = run.last.with_name("last.pt.left")
    assert left.is_file() == (damage is not Path.unlink), "what was refused is kept for whoever wants to look at it"
    checkpoint.save_last(run, state(3))
    assert number_of(checkpoint.load_newest(run)) == 3


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_without_a_whole_one_nothing_is_offered_but_to_start_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    run = saved(new_run(tmp_path / "run"), 3)
    flip(run.last)
    damage(run.previous)
    with pytest.raises(DataError, match="and there is no whole one before it") as caught:
        checkpoint.load_newest(run)
    assert caught.value.problems[0].hint == "start anew with `--fresh`"
    with pytest.raises(DataError, match="no whole checkpoint before the newest"):
        checkpoint.load_newest(run, previous=True)


def test_damage_is_seen_without_a_hash_too_if_the_file_cannot_be_read(tmp_path: Path) -> None:
    """Runs of older versions have none, and a damaged one may be deleted."""
    run = saved(new_run(tmp_path / "run"), 3)
    unchecked(run)
    assert number_of(checkpoint.load_newest(run)) == 3
    run.last.write_bytes(run.last.read_bytes()[:500])
    with pytest.raises(DataError, match="is damaged") as caught:
        checkpoint.load_newest(run)
    assert "`--from-previous` continues from it" in caught.value.problems[0].hint
    assert number_of(checkpoint.load_newest(run, previous=True)) == 2


def test_a_damaged_hash_stops_the_run_until_it_is_deleted(tmp_path: Path) -> None:
    run = saved(new_run(tmp_path / "run"), 3)
    digests.beside(run.last).write_text("0123")
    with pytest.raises(DataError, match=r"last\.pt\.sha256` is damaged"):
        checkpoint.load_newest(run)
    digests.beside(run.last).unlink()
    assert number_of(checkpoint.load_newest(saved(run, 4))) == 4
    flip(run.last)
    with pytest.raises(DataError, match="is not the file"):
        checkpoint.load_newest(run)


def test_the_one_before_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", without)
    run = saved(new_run(tmp_path / "run"), 3)
    assert number_of(checkpoint.load(digests.check(run.previous))) == 2
    flip(run.last)
    assert number_of(checkpoint.load_newest(run, previous=True)) == 2


def test_a_checkpoint_of_another_format_or_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    for number, value in enumerate(({"format": 1}, {"weights": torch.zeros(2)}, [1, 2], torch.zeros(3))):
        torch.save(value, tmp_path / str(number))
        with pytest.raises(DataError, match="not a checkpoint of this version"):
            checkpoint.load(tmp_path / str(number))


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "was-run"),)

    torch.save({"format": checkpoint.FORMAT, "position": Bad()}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match="is damaged: Weights only load failed"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "was-run").exists()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to make files longer than that."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(run: RunDirectory, error: MachineError, words: str) -> None:
    (problem,) = error.problems
    assert problem.message == f"the checkpoint `{run.last}` cannot be written: {words}"
    assert problem.hint == "the last good one is kept: make room, and the same command continues the run"
    assert error.exit_code == 3


@pytest.mark.posix
@pytest.mark.parametrize("size", [0, 100, 1500])
def test_no_room_is_said_and_the_last_good_checkpoint_kept(tmp_path: Path, size: int) -> None:
    run = saved(new_run(tmp_path / "run"), 2)
    with largest_file(size), pytest.raises(MachineError) as caught:
        checkpoint.save_last(run, state(3))
    refused(run, caught.value, "file too large")
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [
        "last.pt",
        "last.pt.sha256",
        "previous.pt",
        "previous.pt.sha256",
    ]
    assert number_of(checkpoint.load_newest(run)) == 2
    checkpoint.save_last(run, state(3))
    assert number_of(checkpoint.load_newest(run)) == 3


@pytest.mark.posix
def test_a_run_goes_on_exactly_when_there_is_room_again(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    import resource

    straight, run = experiment(epochs=4), new_run(tmp_path / "run")
    Loop(straight, new_run(tmp_path / "straight"), watcher).train()

    class FillsTheDisk:
        def batch(self, *_: object) -> None: ...

        def epoch(self, record: dict[str, Any]) -> None:
            if record["epoch"] == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (run.last.stat().st_size - 1, resource.RLIM_INFINITY))

    with largest_file(resource.RLIM_INFINITY), pytest.raises(MachineError) as caught:
        Loop(experiment(epochs=4), run, FillsTheDisk()).train()
    assert caught.value.exit_code == 3
    second = experiment(epochs=4)
    loop = Loop(second, run, watcher)
    assert loop.position.epoch == 2
    loop.train()
    assert torch.equal(weights(straight), weights(second))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where one can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    run = saved(new_run(small_disk / "run"), 2)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(MachineError) as caught:
        checkpoint.save_last(run, state(3))
    refused(run, caught.value, "no space left on device")
    filler.unlink()
    assert number_of(checkpoint.load_newest(run)) == 2
    checkpoint.save_last(run, state(3))
    assert number_of(checkpoint.load_newest(run)) == 3


def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    run = saved(new_run(small_disk / "run"), 2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MachineError) as caught:
        checkpoint.save_last(run, state(3))
    refused(run, caught.value, "read-only file system")
    with pytest.raises(MachineError, match="cannot be made: read-only file system"):
        new_run(small_disk / "another")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert number_of(checkpoint.load_newest(run)) == 2
    checkpoint.save_last(run, state(3))
    assert number_of(checkpoint.load_newest(run)) == 3


@pytest.mark.parametrize("code", files.FULL_OR_CLOSED, ids=lambda c: errno.errorcode[c])
def test_whatever_the_machine_refuses_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Quotas, lost network drives and the like, which cannot be had here, at the moment when the bytes go to the disk."""
    run = saved(new_run(tmp_path / "run"), 2)

    def fails(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(MachineError) as caught:
            checkpoint.save_last(run, state(3))
    refused(run, caught.value, os.strerror(code).lower())
    assert number_of(checkpoint.load_newest(run)) == 2


def test_every_checkpoint_has_its_hash_beside_it(experiment: Make, watcher: Any, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    Loop(experiment(epochs=2, keep_every=1), run, watcher).train()
    checkpoints = sorted((run.path / "checkpoints").glob("*.pt"))
    assert [p.name for p in checkpoints] == ["best.pt", "epoch-0001.pt", "epoch-0002.pt", "last.pt", "previous.pt"]
    assert {p.name for p in run.path.rglob("*.sha256")} == {f"{p.name}.sha256" for p in checkpoints}
    for path in checkpoints:
        assert digests.beside(path).read_text() == f"{files.sha256(path)}  {path.name}\n"


def test_a_run_without_hashes_is_continued_and_has_them_from_its_next_checkpoint_on(tmp_path: Path) -> None:
    run = saved(new_run(tmp_path / "run"), 3)
    unchecked(run)
    assert number_of(checkpoint.load_newest(run)) == 3
    checkpoint.save_last(run, state(4))
    for path in (run.last, run.previous):
        assert digests.beside(path).is_file()
    flip(run.last)
    with pytest.raises(DataError, match="is not the file"):
        checkpoint.load_newest(run)
    assert number_of(checkpoint.load_newest(run, previous=True)) == 3


@pytest.mark.parametrize("hashes", [True, False])
def test_a_newest_checkpoint_that_is_gone_does_not_begin_the_run_anew(tmp_path: Path, hashes: bool) -> None:
    run = saved(new_run(tmp_path / "run"), 2)
    if not hashes:
        unchecked(run)
    run.last.unlink()
    with pytest.raises(DataError, match="is gone") as caught:
        checkpoint.load_newest(run)
    assert "`--from-previous` continues from it" in caught.value.problems[0].hint


FOREIGN = {
    "an opcode without its operand": b"\x80\x02h\x05.",
    "an opcode that is none": b"\x85.",
    "no student": {"format": checkpoint.FORMAT},
    "a student that is a number": {"format": checkpoint.FORMAT, "student": 3},
    "another format": {"format": 1, "student": {}},
    "no mapping": [1],
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_was_made_by_hand_is_refused_in_words(tmp_path: Path, content: object, zipped: bool) -> None:
    path = tmp_path / "best.pt"
    torch.save({} if isinstance(content, bytes) else content, path, _use_new_zipfile_serialization=zipped)
    if isinstance(content, bytes) and not zipped:
        path.write_bytes(content)
    elif isinstance(content, bytes):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("best/data.pkl", content)
            archive.writestr("best/version", "3")
    with pytest.raises(DataError, match=r"is damaged|is not a checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"format": checkpoint.FORMAT, "student": {"w": torch.zeros(1 << 20)}}, tmp_path / "stored.pt")
    checkpoint.load(tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "best.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    assert (tmp_path / "best.pt").stat().st_size < 20_000
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(DataError, match="says to hold more than it does"):
        checkpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize(
    "more", [{"student": {"x": 1}, "epoch": 1}, {"student": {}}, {"student": {}, "epoch": "x"}, {"student": {}, "ema": 3}]
)
def test_a_student_that_does_not_fit_is_told(tmp_path: Path, more: dict[str, Any]) -> None:
    torch.save({"format": checkpoint.FORMAT, **more}, tmp_path / "best.pt")
    with pytest.raises(DataError, match="does not fit the run as it is now"):
        restore_student(nn.ReLU(), tmp_path / "best.pt")
