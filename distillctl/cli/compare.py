"""`distillctl compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from distillctl.cli import completion, options
from distillctl.errors import ProfileError


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|FOLDER...",
            help="Runs, sweeps, folders or patterns, also by their names below runs/; all runs there without them.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="KEY[,KEY]", help="Group by these settings; without it by all that differ, but seeds.", show_default=False
        ),
    ] = None,
    metric: Annotated[str, typer.Option("--metric", metavar="NAME", help="The figure; else the one that chose the best epoch.")] = "",
    last: Annotated[
        bool, typer.Option("--last/--best", help="Of the last epoch, or (the default) of the chosen one.", show_default=False)
    ] = False,
    split: Annotated[str, typer.Option("--split", metavar="[test|val]", help="Of which images; test where all runs have it.")] = "",
    control: Annotated[
        str, typer.Option("--control", metavar="GROUP|RUN", help="What others are compared with; else the same runs from labels alone.")
    ] = "",
    per_compute: Annotated[
        bool, typer.Option("--per-compute", help="Figures that each had reached within the compute of the cheapest.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", metavar="[table|md|csv|latex|html|json]", help="How it is printed.")] = "table",
    as_json: options.Json = False,
) -> None:
    """Compare finished runs over their seeds: mean and spread, differences to the control and whether they are outside noise, and what else
    differs.

    Examples:
        distillctl compare runs/temperatures --by method.temperature

        distillctl compare --per-compute --format latex
    """
    from distillctl.cli.comparison_formats import FORMATS, print_table

    form = "json" if as_json else format_
    if form not in (known := ["table", *FORMATS]):
        raise ProfileError(f"unknown format `{form}`", where="--format", hint=f"allowed: {', '.join(known)}")
    if split not in ("", "test", "val"):
        raise ProfileError(f"unknown split `{split}`", where="--split", hint="allowed: test, val")
    from distillctl.commands import compare as command

    found = command.compare(
        runs or (),
        by=[key for text in by or () for key in text.split(",")],
        metric=metric,
        at="last" if last else "best",
        split="test" if split == "test" else "val" if split else "",
        control=control,
        per_compute=per_compute,
    )
    if form == "table":
        print_table(found)
        return
    typer.echo(FORMATS[form](found), nl=False)
    if form == "csv":
        for text in found.notes:
            typer.echo(f"note: {text}", err=True)
