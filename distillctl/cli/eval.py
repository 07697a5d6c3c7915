"""`distillctl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import completion, options, render
from distillctl.cli.class_table import check_target, rows, write_classes
from distillctl.cli.evaluations import FOLDER, check_folder, write_evaluation
from distillctl.cli.run_argument import is_file, is_run, not_a_run
from distillctl.errors import MachineError, Problem, ProfileError
from distillctl.profile.problems import no_file
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
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Instead of a run's student: this model.", autocompletion=completion.models)
    ] = "",
    weights: Annotated[str, typer.Option("--weights", metavar="NAME", help="With --model: weights that it knows by this name.")] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PROFILE_OR_RUN", help="With --model: whose [dataset] and [evaluate] count.")
    ] = None,
    tta: Annotated[
        str,
        typer.Option("--tta", metavar="[flip|five_crop|ten_crop|multi_scale]", help="Answers to several views, put together."),
    ] = "",
    split: Annotated[str, typer.Option("--split", help="val or test (the default, if there is one); with --model train, too.")] = "",
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="best (the default), last, or a file of weights.")] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a key of dataset or evaluate, or train.workers; with --model also model.KEY: an option of the model, key, mean, "
            "std or image_size, as [teacher] has them. May be given several times.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Evaluate although classes or images are not those of the training.")
    ] = False,
    against_teacher: Annotated[bool, typer.Option("--against-teacher", help="Compare with the teacher, too: KL and agreement.")] = False,
    allow_code: options.AllowCode = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="One line for every class.")] = False,
    classes: Annotated[
        Path | None, typer.Option("--classes", metavar="FILE", help="Write a line for every class to a .csv or .html file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write the results there; those of a run are else in RUN/evaluations.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a run, or with --model any weights.

    Images with one class have top-1, top-5, mean per-class accuracy (mpa), loss, precision, recall, F1 and ECE; other tasks have their
    own figures.

    Examples:
        distillctl eval runs/NAME --tta

        distillctl eval --model resnet32x4 --checkpoint teacher.pth --data PROFILE
    """
    if model or weights or data is not None:
        _check_model(run, model, weights, data, checkpoint)
    _check_paths(run, checkpoint, data)
    if classes is not None:
        check_target(classes)
    if out is not None:
        check_folder(out)
    with render.loading():
        from distillctl.commands.from_python import evaluate
    report = evaluate(
        run,
        model=model,
        data=data,
        checkpoint=checkpoint,
        weights=weights,
        split=split,
        tta=tta,
        device=device,
        overrides=set_ or (),
        accept_change=accept_change,
        against_teacher=against_teacher,
        allow_code=allow_code,
    )
    if (per_class or classes is not None) and not report.classes:
        where = "--per-class" if per_class else "--classes"
        message = f"the images of `{report.called}` have no classes, so there is no line for each"
        raise ProfileError(message, where=where, hint="leave it out")
    if classes is not None:
        write_classes(classes, report)
    _write(out, report)
    if as_json:
        render.as_json(report.as_dict())
    else:
        print_report(report, per_class=per_class)


def _write(out: Path | None, report: Report) -> None:
    """Writes the files of an evaluation. A run that somebody sent may lie where nothing can be written: that is said, and is no failure.

    Raises:
        MachineError: the folder that is named cannot be written.
    """
    if out is not None:
        write_evaluation(out, report)
    elif report.run is not None:
        try:
            write_evaluation(report.run / FOLDER, report)
        except MachineError as error:
            typer.echo(f"note: {error.problems[0].message}; `--out FOLDER` names another place", err=True)


def _check_model(run: Path | None, model: str, weights: str, data: Path | None, checkpoint: str) -> None:
    """What goes with `--model`, and what does not.

    Raises:
        ProfileError: with every problem.
    """
    problems = []
    if not model:
        where = "--weights" if weights else "--data"
        hint = "`--checkpoint` names weights of a run's student, `--set dataset.root=FOLDER` other images"
        problems.append(Problem(f"`{where}` goes with `--model NAME`", where=where, hint=hint))
    elif run is not None:
        hint = "leave one of both out; `--data RUN` takes the images of a run"
        problems.append(Problem("`--model` evaluates a network that no run has, so that RUN means nothing", where=f"eval {run}", hint=hint))
    if model and data is None:
        problems.append(Problem("`--model` does not say on which images", where="--model", hint="`--data` names a profile or a run"))
    if model and checkpoint in ("best", "last"):
        hint = "name a file of weights; `distillctl eval RUN` evaluates those of a run"
        problems.append(Problem(f"`{checkpoint}` is a checkpoint of a run, and `--model` has none", where="--checkpoint", hint=hint))
    elif model and checkpoint and weights:
        problems.append(Problem("`--weights` and `--checkpoint` both say which weights", where="--weights", hint="leave one of both out"))
    elif model and not checkpoint and not weights:
        hint = "`--checkpoint FILE` names a file of weights, `--weights NAME` those that the model knows by a name"
        problems.append(Problem("`--model` does not say which weights", where="--model", hint=hint))
    if problems:
        raise ProfileError(problems)


def _check_paths(run: Path | None, checkpoint: str, data: Path | None) -> None:
    """Says at once, before torch is imported, what is mistyped.

    Raises:
        ProfileError: the run, the profile or the file of weights is not there.
    """
    problems = []
    if run is not None and not is_run(run):
        problems.append(not_a_run(run, "eval RUN"))
    if data is not None and not is_file(data) and not is_run(data):
        message, hint = no_file(data)
        if "is a directory" in message:
            message, hint = (
                f"`{data}` is not a run directory: it has no `run.json`",
                "name a profile, which says where the images are",
            )
        problems.append(Problem(message, where="--data", hint=hint))
    if checkpoint not in ("", "best", "last") and not is_file(Path(checkpoint)):
        message, hint = no_file(Path(checkpoint))
        hint = hint or "a file of weights" if data is not None else "`best`, `last`, or a file of weights"
        problems.append(Problem(message, where="--checkpoint", hint=hint))
    if problems:
        raise ProfileError(problems)


def print_report(report: Report, *, per_class: bool) -> None:
    """The figures in words, and a table of the classes on request."""
    width = max([7, *(len(words) for words, _ in report.shown)])
    epoch = f", epoch {report.epoch}" if report.epoch is not None else ""
    called, images = f"{report.called} ({report.checkpoint}{epoch})", counted(int(report.figures["count"]), "image")
    lines = [("run" if report.run is not None else "model", called)]
    if report.data is not None:
        lines.append(("data", str(report.data)))
    lines += [("split", f"{report.split}, {images}{f', {report.tta}' if report.tta else ''}")]
    lines += [*(("note", note) for note in report.notes), *report.shown]
    if report.more:
        lines.append(("more", ", ".join(report.more)))
    for words, text in lines:
        render.words(f"{words:<{width}} {text}", width + 1)
    if per_class:
        _print_classes(report)


def _print_classes(report: Report) -> None:
    """A line for every class: the share of right answers and their number, or the figures of its task below a head."""
    names = [one_line(line["name"], LONGEST_NAME) for line in report.classes]
    width = max(map(len, names))
    if not (judged := "correct" in report.classes[0]):
        render.line(f"  {'':<{width}}  {'  '.join(f'{words:>7}' for words in report.class_figures.values())}  {report.counts:>7}")
    for name, (_, count, *figures) in zip(names, rows(report), strict=True):
        if judged:
            right, share = figures
            render.line(f"  {name:<{width}}  {_percent(share)}  {right}/{count}")
        else:
            render.line(f"  {name:<{width}}  {'  '.join(map(_percent, figures))}  {count:>7,}")


def _percent(share: float | None) -> str:
    return f"{'–':>7}" if share is None else f"{share:7.2%}"
