"""Run directories: created, appended to, read. From one of them `eval` and resuming work without the profile.

<name>/profile.toml  resolved.toml  environment.json  run.json  metrics.jsonl  run.lock
checkpoints/{last,previous,best,epoch-NNNN}.pt  student.safetensors  model.json, each with its hash beside it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distillctl.errors import DataError, MachineError, ProfileError
from distillctl.files import read_json, write_json, write_text
from distillctl.rundir import digests
from distillctl.rundir.lock import LIBRARY, NAME

ROOT = Path("runs")
FORMAT = 1
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("name", "digest", "resolved_sha256", "created"), str),
    **dict.fromkeys(("format", "epoch", "epochs"), int),
    **dict.fromkeys(("digests", "changes"), list),
    **dict.fromkeys(("result", "costs", "packages", "data_listing"), dict),
}
"""Types of what `run.json` may have."""
_LOCKS = {NAME, LIBRARY}
_FIRST_FILES = {"checkpoints", *_LOCKS, "profile.toml", "resolved.toml", "environment.json"}
"""What is there before `run.json` makes a folder a run."""


class RunDirectory:
    """One run. `create` makes it, `open` finds it again; nothing in it is ever deleted by us but its own newer records.

    resolved: the profile with every value filled in.
    last, previous: the newest full state, and the one before it.
    best: student of the best epoch.
    next_best: student of an epoch that is the best, while the full state that says so is not written yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.resolved = path / "resolved.toml"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"
        self.best = self.checkpoints / "best.pt"
        self.next_best = self.checkpoints / "best-next.pt"

    def kept(self, epoch: int) -> Path:
        """Student of an epoch kept by `keep_every`."""
        return self.checkpoints / f"epoch-{epoch:04d}.pt"

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the profiles with which the run began and went on."""
        info = self.info()
        return (*info.get("digests", ()), info["digest"])

    @property
    def id(self) -> str:
        """The same as long as the run lies somewhere, and of no other run: by what it began as, when and where."""
        info = self.info()
        parts = (self.digests[0], *(info.get(key, "") for key in ("name", "created", "directory")))
        return text_hash("\n".join(parts))[:16]

    @classmethod
    def create(cls, path: Path, *, profile: bytes, resolved: str, environment: dict[str, Any], state: dict[str, Any]) -> RunDirectory:
        """Makes the folder. `run.json` is written last: a folder without it is not a run.

        Raises:
            MachineError: the folder cannot be made.
        """
        run = cls(path)
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"the run directory `{path}` cannot be made: {(error.strerror or str(error)).lower()}") from error
        (path / "profile.toml").write_bytes(profile)
        write_text(run.resolved, resolved)
        write_json(path / "environment.json", environment)
        state = {"resolved_sha256": text_hash(resolved), **state}
        write_json(path / "run.json", _signed({"format": FORMAT, "state": "running", "created": now(), **state}))
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run.

        Raises:
            DataError: there is none.
        """
        if not (path / "run.json").is_file():
            raise DataError(f"`{path}` is not a run directory: it has no `run.json`")
        return cls(path)

    def info(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            DataError: it is damaged, not what a run wrote, or of a newer version.
        """
        path = self.path / "run.json"
        try:
            value = read_json(path)
        except (OSError, ValueError) as error:
            raise DataError(f"`{path}` cannot be read: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("state"), str):
            raise DataError(f"`{path}` does not describe a run")
        if wrong := next((key for key, kind in _KINDS.items() if key in value and type(value[key]) is not kind), None):
            raise DataError(f"`{path}` does not describe a run: `{wrong}` is not as a run writes it")
        if value.get("format", FORMAT) > FORMAT:
            raise DataError(f"`{path}` was written by a newer version of distillctl", hint="update distillctl")
        if value.get("checksum", _checksum(value)) != _checksum(value):  # runs of older versions have none
            raise DataError(f"`{path}` was changed by somebody else than its run", hint="put the file back as it was")
        return value

    def check_resolved(self) -> Path:
        """`resolved.toml`, if it is what the run wrote.

        Raises:
            DataError: it was changed since, or is gone.
        """
        expected = self.info().get("resolved_sha256")
        try:
            found = text_hash(self.resolved.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"`{self.resolved}` cannot be read: {error}") from error
        if expected is not None and found != expected:
            raise DataError(f"`{self.resolved}` was changed by somebody else than its run", hint="put the file back as it was")
        return self.resolved

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and the student is written."""
        return bool(self.info().get("state") == "finished")

    def update(self, **values: Any) -> None:
        """Replaces keys of `run.json`."""
        write_json(self.path / "run.json", _signed({**self.info(), **values, "updated": now()}))

    def append(self, record: dict[str, Any]) -> None:
        """One more line of `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that follows counts on it

    def tidy(self) -> None:
        """Removes what a killed process left half written. Whoever calls holds the lock: nobody else is writing."""
        for path in (*self.path.glob(".*.tmp"), *self.path.glob("checkpoints/.*.tmp")):
            path.unlink(missing_ok=True)
        if not self.next_best.is_file():
            digests.beside(self.next_best).unlink(missing_ok=True)

    def records(self) -> list[dict[str, Any]]:
        """All whole lines of `metrics.jsonl`; a line cut short by a crash ends the list."""
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        result = []
        for line in lines:
            try:
                result.append(json.loads(line.decode()))
            except (ValueError, RecursionError):
                break
        return result

    def keep_records(self, count: int) -> None:
        """Takes out lines of epochs that the checkpoint does not have: they are trained, and written, again."""
        kept = self.records()[:count]
        path = self.path / "metrics.jsonl"
        text = "".join(json.dumps(r) + "\n" for r in kept)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def runs_in(root: Path) -> Iterator[RunDirectory]:
    """All runs below a folder, the newest first."""
    found = [(p.stat().st_mtime_ns, p.parent) for p in root.glob("*/run.json")]
    for _, path in sorted(found, reverse=True):
        yield RunDirectory(path)


def place(name: str, digest: str, *, root: Path = ROOT, out: Path | None = None, fresh: bool = False) -> tuple[Path, RunDirectory | None]:
    """Where a run of this profile belongs: its path, and the run if it is there already.

    Without `out` that is `root/<name>-<first 8 of digest>`, or, with `fresh`, the next free `…-2`, `…-3`. The newest of them
    is the one that the same command continues.

    A run in `out` may be one of another profile; `distillctl.commands.resume_check` tells.

    Raises:
        ProfileError: `out` holds something that is not a run, or with `fresh` a run.
    """
    if out is not None:
        return _place_at(out, fresh)
    base = root / f"{name}-{digest[:8]}"
    number, existing = 1, None
    while True:
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if not path.exists() or _half_made(path):
            break
        if (path / "run.json").is_file():
            existing = RunDirectory(path)
        number += 1
    if existing is not None and not fresh:
        return existing.path, existing
    return path, None


def _place_at(out: Path, fresh: bool) -> tuple[Path, RunDirectory | None]:
    if not out.exists() or (out.is_dir() and _half_made(out)):
        return out, None
    if not (out / "run.json").is_file():
        raise ProfileError(f"`{out}` exists and is not a run directory", where="--out", hint="nothing is overwritten: name another folder")
    if fresh:
        raise ProfileError(f"`{out}` holds a run already", where="--out", hint="nothing is overwritten: name another folder for `--fresh`")
    return out, RunDirectory(out)


def _half_made(path: Path) -> bool:
    """Whether a folder is empty, or was left by a process that was killed while it made a run: its lock always comes first."""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {""}
    if names and not names & _LOCKS:
        return False
    return all(name in _FIRST_FILES or (name.startswith(".") and name.endswith(".tmp")) for name in names) and not any(
        path.glob("checkpoints/[!.]*")
    )


def text_hash(text: str) -> str:
    """The sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(info: Mapping[str, Any]) -> str:
    """Of everything in a `run.json` but the checksum itself."""
    return text_hash(json.dumps({key: value for key, value in info.items() if key != "checksum"}, sort_keys=True))


def _signed(info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "checksum": _checksum(info)}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
