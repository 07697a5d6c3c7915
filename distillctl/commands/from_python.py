"""`distillctl train` and `distillctl eval` as functions, which load what the commands load for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distillctl.api.tracker import Tracker
from distillctl.commands import train as training
from distillctl.commands.evaluate import Report, evaluate_run
from distillctl.commands.evaluate_model import evaluate_model
from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.writing import value_text
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
    track: Sequence[str] = (),
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
        track: names of trackers, such as `["tensorboard"]`, beside those of the profile.
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
    checked = load(profile, registry=registry, overrides=overrides, method=method, teacher=teacher, seed=seed, track=track)
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


def evaluate(
    run: str | Path | None = None,
    *,
    model: str = "",
    data: str | Path | None = None,
    checkpoint: str | Path = "",
    weights: str = "",
    split: str = "",
    tta: str = "",
    device: str = "auto",
    overrides: Sequence[str] | Mapping[str, object] = (),
    accept_change: bool = False,
    against_teacher: bool = False,
    allow_code: bool = False,
    root: str | Path = ROOT,
) -> Report:
    """Evaluates a run, or with `model` and `data` a network of no run: what `distillctl eval` does. Writes nothing.

        report = evaluate("runs/birds")
        print(report.figures["top1"], report.figures["ece"])
        evaluate(model="torchvision/resnet50", weights="DEFAULT", data="profiles/imagenet.toml")

    Args:
        run: the run directory; None for the newest finished one below `root`.
        model: a model's name.
        data: with `model`, a profile that says which data, or a run directory.
        checkpoint: of a run `best` (the default), `last` or a file of weights; of a model a file of weights.
        weights: with `model`, the name of weights that it knows.
        split: `val` or `test`; empty for the test split, or where there is none the validation split.
        tta: `flip`, `five_crop`, `ten_crop`, `multi_scale`, `auto`, or empty for none.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overrides: keys in other words, such as `{"dataset.root": "photos"}` or `["dataset.root=photos"]`.
        accept_change: evaluate although classes or images are not those of the training.
        against_teacher: tell KL and agreement with the teacher, too.
        allow_code: run the file of a model or data set of one's own.
        root: where runs lie.

    Returns:
        `figures` by name, `classes` with a line for each, `shown` as the command prints it; `as_dict()` is what `--json` prints.

    Raises:
        DistillError: something is not there, or does not fit.
    """
    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    texts = [f"{key}={value_text(value)}" for key, value in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
    if not model:
        if data is not None or weights:
            raise ProfileError(f"`{'weights' if weights else 'data'}` has no effect without `model`")
        return evaluate_run(
            None if run is None else Path(run),
            registry,
            split=split,
            checkpoint=str(checkpoint) or "best",
            tta=tta,
            device=device,
            root=Path(root),
            accept_change=accept_change,
            against_teacher=against_teacher,
            overrides=texts,
        )
    if run is not None or data is None:
        raise ProfileError(f"with `model = {model!r}`, `data` says on which images it is evaluated", hint="a profile, or a run directory")
    return evaluate_model(
        model,
        Path(data),
        registry,
        checkpoint=Path(checkpoint) if checkpoint else None,
        weights=weights,
        split=split,
        tta=tta,
        device=device,
        root=Path(root),
        accept_change=accept_change,
        against_teacher=against_teacher,
        overrides=texts,
    )
