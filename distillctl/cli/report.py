"""`distillctl report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillctl.cli import completion, options, render
from distillctl.text import counted


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|FOLDER",
            help="Run directories, sweeps, folders of runs, or patterns for them; without any the newest finished run.",
            autocompletion=completion.runs,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="The page; without it report.html in the run or folder.")
    ] = None,
    plots: Annotated[
        str, typer.Option("--plots", metavar="svg|pdf|png", help="Write the curves as files for papers, too, into plots/ beside the page.")
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Write a page with everything that is known of a run, or of several side by side.

    The page is one file that loads nothing. Of one run it has curves, figures beside teacher and control, classes, confusions,
    calibration, images, costs and the profile; of several their groups, curves, and two settings as a heat map.

    Examples:
        distillctl report runs/NAME

        distillctl report runs/SWEEP --plots svg
    """
    from distillctl.commands.report import report as write

    written = write(runs or (), out=out, plots=plots)
    if as_json:
        render.as_json(
            {
                "path": str(written.path),
                "runs": written.runs,
                "notes": list(written.notes),
                "plots": [str(path) for path in written.plots],
            }
        )
        return
    for note in written.notes:
        typer.echo("\n".join(render.wrapped(f"note: {note}")), err=True)
    render.words(f"report     {written.path} ({counted(written.runs, 'run')})", 11)
    if written.plots:
        render.words(f"plots      {written.plots[0].parent} ({counted(len(written.plots), 'file')})", 11)
