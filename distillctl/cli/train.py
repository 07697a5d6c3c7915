"""`distillctl train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl.cli import options, render
from distillctl.distributed import heartbeat
from distillctl.errors import ProfileError
from distillctl.text import one_line

if TYPE_CHECKING:
    from distillctl.commands.dry_run import Plan
    from distillctl.commands.train import Result


def train(
    profile: options.Profile,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    seed: options.Seed = None,
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

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    checked = load(profile, registry=registry, overrides=set_ or (), method=method, teacher=teacher, seed=seed)
    if nproc > 1 and (dry_run or os.environ.get("WORLD_SIZE", str(nproc)) != str(nproc)):
        why = "with `--dry-run`, which looks at one process" if dry_run else "where a launcher has started the processes (`WORLD_SIZE`)"
        raise ProfileError(f"`--nproc {nproc}` has no effect {why}", where="--nproc", hint="leave it out")
    if dry_run:
        with render.loading():
            from distillctl.commands.dry_run import dry_run as plan

        print_plan(plan(checked, registry, out=out, device=device))
        return
    if nproc > 1 and "RANK" not in os.environ:
        from distillctl.distributed.launcher import launcher
        from distillctl.rundir.directory import place
        from distillctl.slurm.request import Request

        if fresh:  # decided here, since it would begin another run whenever the processes start again
            out, _ = place(checked.name, checked.digest, out=out, fresh=True)
        request = Request(profile, tuple(set_ or ()), method, teacher, seed, out, device, nproc, accept_change)
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
    with audience(quiet=quiet or not talks) as shown:
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
        typer.echo(one_line(line), err=True)


def print_result(result: Result) -> None:
    """Teacher, student and agreement, and where the run lies."""
    from distillctl.cli.display import duration
    from distillctl.rundir.directory import RunDirectory

    summary: dict[str, Any] = dict(result.summary)
    if result.already:
        render.line(f"this run is finished: {result.path} (`--fresh` starts a new one)")
    split = summary.get("split", "")
    if "teacher" in summary:
        render.line(f"teacher    {_headline(result, summary['teacher'])} on {split}")
    if "best" in summary:
        best, last = summary["best"], summary["last"]
        chosen = "chosen on val" if summary["chosen_on"] == "val" else "the last epoch: no validation split chooses"
        more = "; " + ", ".join(others) if (others := _others(result, best)) else ""
        render.line(f"student    {_headline(result, best)} on {split} (epoch {best['epoch']}, {chosen}{more})")
        if last["epoch"] != best["epoch"]:
            render.line(f"last       {_headline(result, last)} on {split} (epoch {last['epoch']})")
    if "chance" in summary:
        guess = result.task.show(next(iter(result.task.names)), summary["chance"])
        render.line(f"warning    the student is no better than chance, which reaches {guess}: lower `optimizer.lr`, or train longer?")
    if "accepted_changes" in summary:
        count = summary["accepted_changes"]
        render.line(f"changed    {count} accepted change{'s' if count > 1 else ''} while it ran: `changes` in run.json")
    if "agreement" in summary:
        render.line(f"agreement  {summary['agreement']:.2%} of the {split} images get the same answer from both")
    if sizes := summary.get("parameters"):
        taught = f"; teacher {sizes['teacher']:,}" if "teacher" in sizes else ""
        smaller = f", {sizes['teacher'] / sizes['student']:.1f} times as many" if taught else ""
        render.line(f"size       student {sizes['student']:,} parameters{taught}{smaller}")
    if seconds := RunDirectory.open(result.path).info().get("seconds"):
        render.line(f"time       {duration(seconds)} of training")
    render.line(f"file       {result.path / 'student.safetensors'}")
    render.line(f"run        {result.path}")


def _headline(result: Result, figures: Mapping[str, float]) -> str:
    """The figure that chooses the best epoch, as text."""
    metric = next(iter(result.task.names))
    return result.task.show(metric, figures[metric])


def _others(result: Result, figures: Mapping[str, float]) -> list[str]:
    """The other figures but the loss, with their names."""
    shown = [(name, words) for name, words in result.task.names.items() if name != "loss"]
    return [f"{words} {result.task.show(name, figures[name])}" for name, words in shown[1:]]


def _times(plan: Plan) -> list[str]:
    """What the time goes into."""
    from distillctl.cli.display import duration

    named = {"steps": plan.step_seconds, "evaluations": plan.evaluation_seconds, "the teacher's training": plan.teacher_seconds}
    return [f"{name} {duration(seconds)}" for name, seconds in named.items() if seconds]


def print_plan(plan: Plan) -> None:
    """What a dry run found."""
    from distillctl.cli.display import duration, terms_line

    render.line(f"run        {plan.path} (nothing is written by a dry run)")
    render.line(f"data       {plan.data}")
    for side in plan.sides:
        render.line(f"{side.role:<10} {side.name}: {side.parameters:,} parameters")
        for name, shape in side.taps.items():
            render.line(f"             {name:<14} {' × '.join(map(str, shape))}")
    render.line(f"methods    {plan.method_parameters:,} parameters beside the student")
    for part in plan.parts:
        name = "" if part.name == "main" else f"{part.name}: "
        steps = plan.steps_per_epoch * part.epochs
        render.line(f"terms      {name}{terms_line(part.reading.total, part.reading.terms)}")
        render.line(
            f"steps      {name}{steps} in {part.epochs} epochs of {plan.steps_per_epoch}, {part.seconds_per_step * 1000:.0f} ms each"
        )
    render.line(f"memory     {plan.memory / 2**20:,.0f} MiB at the peak of two steps")
    render.line(f"time       about {duration(plan.seconds)} by the second step: {', '.join(_times(plan))}")
    for note in plan.notes:
        render.line(f"note       {note}")
