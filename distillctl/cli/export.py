"""`distillctl export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import completion, options, render
from distillctl.cli.run_argument import check_student
from distillctl.commands.export_request import check_request
from distillctl.text import counted

if TYPE_CHECKING:
    from distillctl.commands.export import Exported

WORTH = 0.005
"""Loss by int8 from which on training for it is suggested."""


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run directory.", show_default=False, autocompletion=completion.runs)
    ],
    format_: Annotated[
        str, typer.Option("--format", metavar="[onnx|torch-export|safetensors]", help="What kind of file to write.")
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits, and measure what that costs.")] = False,
    float_input: Annotated[
        bool, typer.Option("--float-input", help="Take normalised float32; otherwise the file takes pixels and normalises them.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The file or its folder, instead of RUN/export/.")] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images on which the answers are compared.")] = 500,
    calibration: Annotated[int, typer.Option("--calibration", min=1, help="Training images that give the ranges of int8.")] = 500,
    set_: options.Set = None,
    allow_code: options.AllowCode = False,
    as_json: options.Json = False,
) -> None:
    """Write the student of a run as a file for other programs, and check on real images that it answers the same.

    Examples:
        distillctl export runs/NAME

        distillctl export runs/NAME --format onnx --int8
    """
    check_student(run, "export RUN")
    check_request(format_, int8=int8, pixels=not float_input)
    with render.loading():
        from distillctl.commands import export as command

    found = command.export(
        run,
        format=format_,
        int8=int8,
        pixels=not float_input,
        out=out,
        images=images,
        calibration=calibration,
        overrides=set_ or (),
        allow_code=allow_code,
    )
    if as_json:
        render.as_json(found.as_dict())
    else:
        print_exported(found)


def print_exported(found: Exported) -> None:
    """The file, how alike it answers, and what int8 costs."""

    def say(text: str) -> None:
        render.words(text, 11)

    say(f"file       {found.path}, {found.size / 1e6:.1f} MB")
    say(f"input      {found.input}")
    say(f"output     {found.output}")
    parity = found.parity
    shown = "pictures of noise" if parity.source == "noise" else f"{parity.source} images"
    if parity.edges is None:
        differs = f"a logit differs by {parity.difference:.2g} at most"
        say(f"answers    the same best guess for {parity.same} of {parity.images} {shown}; {differs}")
    elif not parity.largest and parity.same:
        say(f"answers    no box on {parity.same} of {parity.images} {shown}, so that little was compared")
    else:
        differs = f"an edge differs by {parity.edges:.2g} pixels and a score by {parity.difference:.2g} at most"
        say(f"answers    the same boxes on {parity.same} of {parity.images} {shown}; there {differs}")
    if found.before is not None and found.after is not None and found.task is not None and found.loss is not None:
        metric, task = found.task.metric, found.task
        words = task.names[metric]
        images = counted(int(found.before["count"]), f"{found.split} image")
        before, after = (task.show(metric, figures[metric]) for figures in (found.before, found.after))
        change = task.show(metric, abs(found.loss)).removesuffix("%")
        say(f"{words:<10} {before} before, {after} in int8: {change} points {'less' if found.loss >= 0 else 'more'}, on {images}")
        if found.loss > WORTH:
            options = f"--set train.quantize=int8 --set student.checkpoint={found.run / 'student.safetensors'}"
            say(
                f"regain     `distillctl train PROFILE {options}` trains for int8 under the same distillation: "
                "begin with a tenth of its epochs and of its rate"
            )
    for note in found.notes:
        say(f"note       {note}")
