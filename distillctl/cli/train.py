"""`distillctl train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl.cli import options, render
from distillctl.cli.costs import macs_told, print_costs
from distillctl.distributed import heartbeat
from distillctl.errors import MachineError, ProfileError
from distillctl.text import counted, duration

if TYPE_CHECKING:
    from distillctl.commands.dry_run import Plan
    from distillctl.commands.train import Result


def train(
    profile: options.Profile,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    seed: options.Seed = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,N,…", help="One run for each seed, and a table of all.", show_default=False)
    ] = None,
    track: options.Track = None,
    out: options.Out = None,
    device: options.Device = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new run beside an existing one.")] = False,
    nproc: Annotated[
        int, typer.Option("--nproc", min=1, help="Processes that train together on this machine; each takes a share of a batch.")
    ] = 1,
    from_previous: Annotated[bool, typer.Option("--from-previous", help="Continue from the checkpoint before the newest one.")] = False,
    accept_change: options.AcceptChange = False,
    allow_code: options.AllowCode = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build everything, take two steps, tell what the run would be.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")] = False,
) -> None:
    """Train what PROFILE says; the same command again continues an unfinished run.

    Examples:
        distillctl train profiles/quickstart.toml

        distillctl train profiles/cub_mgd.toml --set train.epochs=2 --set dataset.limit=2000
    """
    heartbeat.start()
    from distillctl.plugin.registry import Registry
    from distillctl.profile.reading import load
    from distillctl.slurm.request import Request

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    if seeds is not None:
        from distillctl.cli.sweep import train_seeds

        alone = {"--seed": seed is not None, "--fresh": fresh, "--from-previous": from_previous}
        request = Request(profile, tuple(set_ or ()), method, teacher, None, None, device, nproc, accept_change, tuple(track or ()))
        train_seeds(request, seeds, registry, out, alone, allow_code=allow_code, dry_run=dry_run, quiet=quiet)
        return
    checked = load(profile, registry=registry, overrides=set_ or (), method=method, teacher=teacher, seed=seed, track=track or ())
    if nproc > 1 and (dry_run or os.environ.get("WORLD_SIZE", str(nproc)) != str(nproc)):
        why = "with `--dry-run`, which looks at one process" if dry_run else "where a launcher has started the processes (`WORLD_SIZE`)"
        raise ProfileError(f"`--nproc {nproc}` has no effect {why}", where="--nproc", hint="leave it out")
    if dry_run:
        with render.loading():
            from distillctl.commands.dry_run import dry_run as plan

        print_plan(plan(checked, registry, out=out, device=device))
        return
    if nproc > 1 and "RANK" not in os.environ:
        if sys.platform == "win32":
            raise MachineError("`--nproc` starts several processes on Linux and macOS only", hint="without it one process trains")
        from distillctl.distributed.launcher import launcher
        from distillctl.rundir.directory import place

        if fresh:  # decided here, since it would begin another run whenever the processes start again
            out, _ = place(checked.name, checked.digest, out=out, fresh=True)
        request = Request(profile, tuple(set_ or ()), method, teacher, seed, out, device, nproc, accept_change, tuple(track or ()))
        command, *arguments = request.arguments()
        flags = [
            *(["--quiet"] if quiet else []),
            *(["--from-previous"] if from_previous else []),
            *(["--allow-code"] if allow_code else []),
        ]
        with launcher(nproc, [command, *flags, *arguments], _complain) as group:
            raise typer.Exit(group.launch())
    from distillctl.cli.display import audience

    with render.loading():
        from distillctl.commands.train import train as run

    talks = os.environ.get("RANK", "0") == "0"
    with audience(quiet=quiet, talks=talks) as shown:
        result = run(
            checked,
            registry,
            shown,
            out=out,
            device=device,
            fresh=fresh,
            from_previous=from_previous and not heartbeat.restarts(),  # a second time it would go back further
            accept_change=accept_change,
            command=sys.argv,
        )
    if talks:
        print_result(result)


def _complain(text: str) -> None:
    for line in text.split("\n"):
        typer.echo("\n".join(render.wrapped(line)), err=True)


def _say(text: str) -> None:
    """A name and what is said of it, below itself where the terminal is narrow."""
    render.words(text, 11)


def print_result(result: Result) -> None:
    """Teacher, student and agreement, and where the run lies."""
    from distillctl.rundir.directory import RunDirectory

    summary: dict[str, Any] = dict(result.summary)
    if result.already:
        _say(f"this run is finished: {result.path} (`--fresh` starts a new one)")
    split = summary.get("split", "")
    if "teacher" in summary:
        each = [f"{name} {_headline(result, figures)}" for name, figures in summary.get("teachers", {}).items()]
        of, alone = (f"mean of {len(each)} ", f"; {', '.join(each)}") if each else ("", "")
        _say(f"teacher    {of}{_headline(result, summary['teacher'])} on {split}{alone}")
    if "teacher_knn" in summary:
        _say(f"teacher    k-NN {result.task.show('knn', summary['teacher_knn'])}")
    if "best" in summary:
        best, last = summary["best"], summary["last"]
        chosen = "chosen on val" if summary["chosen_on"] == "val" else "the last epoch: no validation split chooses"
        more = "; " + ", ".join(others) if (others := _told(result, best)[1:]) else ""
        _say(f"student    {_headline(result, best)} on {split} (epoch {best['epoch']}, {chosen}{more})")
        if last["epoch"] != best["epoch"]:
            _say(f"last       {_headline(result, last)} on {split} (epoch {last['epoch']})")
        _print_gain(result, best)
    if "start" in summary:
        _say(f"start      {', '.join(_told(result, summary['start']))} on {summary['start']['split']} before training")
    if "stopped_early" in summary:
        _say(f"stopped    early, after epoch {summary['stopped_early']}: no better figure on val for `train.patience` epochs")
    if "accepted_changes" in summary:
        count = summary["accepted_changes"]
        _say(f"changed    {counted(count, 'accepted change')} while it ran: `changes` in run.json")
    if "agreement" in summary:
        _say(f"agreement  {summary['agreement']:.2%} of the {split} images get the same answer from both")
    info = RunDirectory.open(result.path).info()
    print_costs(info)
    if seconds := info.get("seconds"):
        _say(f"time       {duration(seconds)} of training")
    _say(f"file       {result.path / 'student.safetensors'}")
    _say(f"run        {result.path}")


def _print_gain(result: Result, best: Mapping[str, float]) -> None:
    """How much better the best student is than guessing, and than what learns from labels alone."""
    from distillctl.analysis.control import control_beside

    metric, summary = result.task.metric, result.summary
    figure = best[metric]
    if "floor" in summary:
        guess = result.task.show(metric, summary["chance"])
        if figure <= summary["floor"]:
            _say(f"warning    the student is no better than chance, which reaches {guess}: lower `optimizer.lr`, or train longer?")
        else:
            _say(f"gain       {_points(result, figure - summary['chance'])} over chance, which reaches {guess}")
    control = control_beside(result.path)
    found = {} if control is None else control.result
    if control is not None and "best" in found and found.get("split") == summary["split"]:
        alone = found["best"][metric]
        less = "less" if figure > alone else "more"
        difference = "the same" if figure == alone else f"{_points(result, abs(figure - alone))} {less}"
        _say(f"control    {result.task.show(metric, alone)} from labels alone, {difference}: {control.path}")


def _points(result: Result, difference: float) -> str:
    """A difference of two figures; one of percentages is in points."""
    text = result.task.show(result.task.metric, difference)
    return f"{text.removesuffix('%')} points" if text.endswith("%") else text


def _headline(result: Result, figures: Mapping[str, float]) -> str:
    """The figure that chooses the best epoch, as text, with its name where it is not told by labels."""
    metric, words = next(iter(result.task.names.items()))
    name = f"{words} " if result.task.compares else ""
    return name + result.task.show(metric, figures[metric])


def _told(result: Result, figures: Mapping[str, float]) -> list[str]:
    """The figures but the loss, with their names."""
    shown = [(name, words) for name, words in result.task.names.items() if name != "loss" and name in figures]
    return [f"{words} {result.task.show(name, figures[name])}" for name, words in shown]


def _times(plan: Plan) -> list[str]:
    """What the time goes into."""
    named = {"steps": plan.step_seconds, "evaluations": plan.evaluation_seconds, "the teacher's training": plan.teacher_seconds}
    return [f"{name} {duration(seconds)}" for name, seconds in named.items() if seconds]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def print_plan(plan: Plan) -> None:
    """What a dry run found."""
    from distillctl.api.method import OUTPUT
    from distillctl.cli.display import terms_line

    _say(f"run        {plan.path} (nothing is written by a dry run)")
    _say(f"data       {plan.data}")
    outputs = {side.taps[OUTPUT] for side in plan.sides}
    for side in plan.sides:
        _say(f"{side.role:<10} {side.name}: {side.parameters:,} parameters{macs_told(side.macs)}")
        for name, shape in side.taps.items():
            if name == OUTPUT and len(outputs) == 1:
                continue
            render.line(f"             {name:<14} {_shape(shape)}")
    if len(outputs) == 1:
        _say(f"logits     {_shape(*outputs)}")
    _say(f"methods    {plan.methods['parameters']:,} parameters beside the student{macs_told(plan.methods.get('macs'))}")
    for part in plan.parts:
        name = "" if part.name == "main" else f"{part.name}: "
        steps = plan.steps_per_epoch * part.epochs
        _say(f"terms      {name}{terms_line(part.reading.total, part.reading.terms)}")
        length = f"{steps:,} in {counted(part.epochs, 'epoch')} of {plan.steps_per_epoch:,}"
        _say(f"steps      {name}{length}, {part.seconds_per_step * 1000:.0f} ms each")
    if plan.memory is not None:
        _say(f"memory     {plan.memory / 2**20:,.0f} MiB at the peak of two steps")
    _say(f"time       about {duration(plan.seconds)} by the second step: {', '.join(_times(plan))}")
    for note in plan.notes:
        _say(f"note       {note}")
