"""`distillctl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import completion, options, render
from distillctl.cli.class_table import check_target, write_classes
from distillctl.errors import Problem, ProfileError
from distillctl.profile.problems import no_file
from distillctl.rundir.directory import ROOT, runs_in
from distillctl.text import counted, one_line

if TYPE_CHECKING:
    from distillctl.commands.evaluate import Report

LONGEST_NAME = 80
"""Characters of a class's name in a table; files have all of it."""


def eval_(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run directory; without it the newest finished one.", autocompletion=completion.runs),
    ] = None,
    tta: Annotated[str, typer.Option("--tta", metavar="[flip|ten_crop]", help="Average the logits over several views.")] = "",
    split: Annotated[str, typer.Option("--split", help="val or test (the default, if there is one).")] = "",
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="best, last, or a file of weights.")] = "best",
    set_: options.Set = None,
    device: options.Device = "auto",
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Evaluate although classes or images are not those of the training.")
    ] = False,
    allow_code: options.AllowCode = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="One line for every class.")] = False,
    classes: Annotated[
        Path | None, typer.Option("--classes", metavar="FILE", help="Write a line for every class to a .csv or .html file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a run: top-1, top-5, mean per-class accuracy (mpa) and loss.

    Examples:
        distillctl eval --tta

        distillctl eval runs/NAME --split test --checkpoint last --json
    """
    _check_paths(run, checkpoint)
    if classes is not None:
        check_target(classes)
    with render.loading():
        from distillctl.commands.evaluate import evaluate_run
    from distillctl.plugin.registry import Registry

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    report = evaluate_run(
        run,
        registry,
        split=split,
        checkpoint=checkpoint,
        tta=tta,
        device=device,
        accept_change=accept_change,
        overrides=set_ or (),
    )
    if (per_class or classes is not None) and not report.classes:
        where = "--per-class" if per_class else "--classes"
        raise ProfileError(f"the images of `{report.run}` have no classes, so there is no line for each", where=where, hint="leave it out")
    if classes is not None:
        write_classes(classes, report)
    if as_json:
        render.as_json(report.as_dict())
    else:
        print_report(report, per_class=per_class)


def _check_paths(run: Path | None, checkpoint: str) -> None:
    """Says at once, before torch is imported, what is mistyped.

    Raises:
        ProfileError: the run or the file of weights is not there.
    """
    problems = []
    if run is not None and not _is_file(run / "run.json"):
        message, hint = no_file(run)
        if message.startswith("there is no file"):
            message, hint = f"there is no run directory `{run}`", hint
        else:
            message, hint = f"`{run}` is not a run directory: it has no `run.json`", ""
        problems.append(Problem(message, where="eval RUN", hint=_meant(run) or hint))
    if checkpoint not in ("best", "last") and not _is_file(Path(checkpoint)):
        message, _ = no_file(Path(checkpoint))
        problems.append(Problem(message, where="--checkpoint", hint="`best`, `last`, or a file of weights"))
    if problems:
        raise ProfileError(problems)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _meant(run: Path) -> str:
    """Which run somebody means who leaves out the folder of runs, or names the profile."""
    if _is_file(ROOT / run / "run.json"):
        return f"did you mean `{ROOT / run}`?"
    if run.suffix == ".toml":
        found = [one.path for one in runs_in(ROOT) if one.path.name.startswith(f"{run.stem}-")]
        return f"the newest run of that profile is `{found[0]}`" if found else f"`distillctl train {run}` makes a run of that profile"
    return ""


def print_report(report: Report, *, per_class: bool) -> None:
    """The figures in words, and a table of the classes on request."""
    epoch = f", epoch {report.epoch}" if report.epoch is not None else ""
    render.words(f"run     {report.run} ({report.checkpoint}{epoch})", 8)
    render.words(f"split   {report.split}, {counted(int(report.figures['count']), 'image')}{f', {report.tta}' if report.tta else ''}", 8)
    for words, text in report.shown:
        render.words(f"{words:<7} {text}", 8)
    if per_class:
        lines = [(one_line(line["name"], LONGEST_NAME), line["correct"], line["count"]) for line in report.classes]
        width = max(len(name) for name, _, _ in lines)
        for name, right, count in lines:
            share = f"{right / count:7.2%}" if count else "      –"
            render.line(f"  {name:<{width}}  {share}  {right}/{count}")
