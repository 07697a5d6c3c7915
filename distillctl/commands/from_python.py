"""`distillctl train` and `distillctl eval` as functions, which load what the commands load for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distillctl.api.tracker import Tracker
from distillctl.commands import train as training
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.directory import ROOT

Result = training.Result


def train(
    profile: str | Path,
    *,
    overrides: Sequence[str] | Mapping[str, object] = (),
    method: str | None = None,
    teacher: str | Path | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    from_previous: bool = False,
    accept_change: bool = False,
    allow_code: bool = False,
    tracker: Tracker | None = None,
    root: str | Path = ROOT,
) -> Result:
    """Trains what a profile says, or continues an unfinished run of it, or finds the finished one: what `distillctl train` does.

        result = train("profiles/quickstart.toml", overrides={"train.epochs": 2})
        print(result.path, result.summary["best"]["top1"])

    Args:
        profile: the TOML file.
        overrides: keys of the profile in other words: `["train.epochs=2"]` as behind `--set`, or `{"train.epochs": 2}`.
        method: another method with its own defaults; `none` trains on labels alone.
        teacher: a run directory, a profile or a file of weights in place of the profile's teacher.
        seed: in place of the profile's.
        out: the run directory; otherwise one below `root`, named after the profile.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        fresh: start a new run beside a finished or unfinished one.
        from_previous: continue from the checkpoint before the newest one, which may be damaged.
        accept_change: continue although something changed since the run began; noted in the run.
        allow_code: run the file of a model or data set that the profile names as `file:nets.py:Net`.
        tracker: is told what happens (`distillctl.Tracker`); by default nothing is printed.
        root: where runs lie.

    Returns:
        `path` of the run, `summary` (the key `result` of its `run.json`), and `already`, whether it was finished before.

    Raises:
        DistillError: whatever a user can put right; each of its `problems` has a message, a place and a hint.
        StoppedError: a signal ended it; the same call continues.
    """
    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    checked = load(profile, registry=registry, overrides=overrides, method=method, teacher=teacher, seed=seed)
    return training.train(
        checked,
        registry,
        Tracker() if tracker is None else tracker,
        out=None if out is None else Path(out),
        device=device,
        fresh=fresh,
        from_previous=from_previous,
        accept_change=accept_change,
        root=Path(root),
    )
