"""`distillctl softmax`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import completion, options, render
from distillctl.cli.run_argument import is_file, is_run, not_a_run
from distillctl.errors import MachineError, ProfileError
from distillctl.files import write_text

if TYPE_CHECKING:
    from distillctl.analysis.softened import Temperatures

ENDINGS = (".html", ".svg", ".pdf", ".png")


def softmax(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|PROFILE",
            help="A run, for its student and its teacher, or a profile, for its teacher.",
            autocompletion=completion.runs,
            show_default=False,
        ),
    ],
    temperatures: Annotated[str, typer.Option("--temperatures", metavar="T,T,...", help="Temperatures.")] = "1,2,4,8,16,100",
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="One image, instead of those of the data.")] = None,
    class_: Annotated[str, typer.Option("--class", metavar="NAME", help="Images of this class alone.")] = "",
    split: Annotated[str, typer.Option("--split", help="train, val or test (the default, if there is one).")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The picture: .html, or .svg, .pdf, .png; a run has else softmax.html.")
    ] = None,
    device: options.Device = "auto",
    allow_code: options.AllowCode = False,
    as_json: options.Json = False,
) -> None:
    """Show what a temperature makes of a network's answers.

    A table has entropy, the probability of the classes that are not the label, and how the gradient of distillation is shared between
    the label's logit and the others; a page has some images and their classes.

    Examples:
        distillctl softmax runs/NAME

        distillctl softmax PROFILE --temperatures 1,4,20 --class cat
    """
    chosen = _temperatures(temperatures)
    if not is_run(what) and not is_file(what):
        raise ProfileError(not_a_run(what, "softmax"))
    if out is not None:
        _check_target(out)
    with render.loading():
        from distillctl.commands.softmax import softmax as soften
    found = soften(what, temperatures=chosen, image=image, label=class_, split=split, device=device, allow_code=allow_code)
    path = out or (what / "softmax.html" if what.is_dir() else Path(f"softmax-{what.stem}.html"))
    _write(path, found)
    if as_json:
        render.as_json({**found.as_dict(), "picture": str(path)})
        return
    print_table(found)
    render.words(f"picture    {path}", 11)


def print_table(found: Temperatures) -> None:
    """The means at each temperature; of one image also its likeliest classes."""
    from distillctl.analysis.softened import softmax as shares
    from distillctl.pages.softmax_page import likeliest, numbers, sentences

    for sentence in sentences(found):
        render.words(sentence, 0)
    mark = {who: f" {who[0]}" if len(found.softened) > 1 else "" for who in found.softened}
    if len(mark) > 1:
        render.words(f"In the table {', '.join(f'{letter.strip()} is the {who}' for who, letter in mark.items())}.", 0)
    render.line()
    head = ["T", *(f"{what}{mark[who]}" for who in found.softened for what in ("entropy", "others"))]
    head += ["gradient", "on label", "on others"] if found.gradients else []
    render.table(head, [numbers(found, i) for i in range(len(found.temperatures))])
    render.line()
    if len(next(iter(found.logits.values()))) == 1:
        for who, logits in found.logits.items():
            at = [shares(logits, value)[0] for value in found.temperatures]
            rows = [(found.classes[number], *(f"{one[number]:.2%}" for one in at)) for number in likeliest(found, 0, 5)]
            render.table((who, *(f"T={value:g}" for value in found.temperatures)), rows)
            render.line()


def _temperatures(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ProfileError(
            f"`{text}` is not a list of temperatures", where="--temperatures", hint="numbers with commas between: `--temperatures 1,2,4`"
        ) from None


def _check_target(path: Path) -> None:
    """Says before anything is computed whether the picture can be written.

    Raises:
        DistillError: it has another ending, would lie in a folder that is not there, or needs what is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ProfileError(f"`{path}` ends in none of {', '.join(f'`{ending}`' for ending in ENDINGS)}", where="--out")
    if path.is_dir() or not path.parent.is_dir():
        what = f"`{path}` is a folder" if path.is_dir() else f"there is no folder `{path.parent}`"
        raise ProfileError(what, where="--out")
    if path.suffix.lower() != ".html":
        from distillctl.pages.plots import check_matplotlib

        check_matplotlib()


def _write(path: Path, found: Temperatures) -> None:
    from distillctl.pages.softmax_page import softmax_page
    from distillctl.pages.softmax_plot import write_softmax_plot

    try:
        if path.suffix.lower() == ".html":
            write_text(path, softmax_page(found))
        else:
            write_softmax_plot(path, found)
    except OSError as error:
        raise MachineError(
            f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}", hint="`--out FILE` names another place"
        ) from error
