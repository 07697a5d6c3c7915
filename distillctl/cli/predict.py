"""`distillctl predict`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import completion, options, prediction_rows, render
from distillctl.cli.run_argument import check_student
from distillctl.commands.image_paths import image_paths, listed_paths
from distillctl.errors import MachineError, ProfileError
from distillctl.files import FULL_OR_CLOSED, write_atomically
from distillctl.text import counted, one_line

if TYPE_CHECKING:
    from distillctl.commands.predict import Prediction

_SHEETS = (".png", ".jpg", ".jpeg")
_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""
_NAMED = 10
"""Broken files that are named at the end; the rows name all."""
_WHERE = "predict PATH"


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", autocompletion=completion.runs)],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Files, folders with all below them, patterns in quotes ('photos/**/*.jpg'), or - for a list on standard input, a path"
            " a line, which is also read where no PATH is given.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Answers to each image.")] = 5,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write a .csv or .jsonl file, which is there when all is done.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="Draw a contact sheet, a .png or .jpg file: pictures with answers.")
    ] = None,
    sheet_limit: Annotated[
        int, typer.Option("--sheet-limit", min=1, max=1000, metavar="N", help="Pictures of the sheet: the first N.")
    ] = 60,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, metavar="N", help="Images that are computed at once.")] = 64,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, metavar="N", help="Processes that decode (all cores).", show_default=False),
    ] = None,
    device: options.Device = "auto",
    null: Annotated[bool, typer.Option("--null", "-0", help="Paths on standard input end in NUL, as `find -print0` writes them.")] = False,
    allow_code: options.AllowCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object a line, for scripts.")] = False,
) -> None:
    """Classify images with the student of a run, read as its evaluation reads them.

    Answers are printed as they come: what fits on a line of a terminal, or all between tabs where a program reads them. A broken file is
    named, the others go on, and the exit code is 1.

    Examples:
        distillctl predict runs/NAME photos/ --out answers.csv --sheet sheet.png

        find photos -name '*.jpg' | distillctl predict runs/NAME --top 1 --json
    """
    check_student(run, "predict RUN", of_a_file="the run comes first, and then the images")
    if out is not None and as_json:
        raise ProfileError("`--json` prints the answers, and `--out` writes them", where="--json", hint="`--out FILE.jsonl` has JSON")
    _check_target(out, prediction_rows.FILES, "--out")
    _check_target(sheet, _SHEETS, "--sheet")
    files = _files(paths or ["-"], null)
    with render.loading():
        from distillctl.build.student import load_student
        from distillctl.commands.predict import class_names
        from distillctl.commands.predict import predict as answers
    from distillctl.plugin.registry import Registry

    registry = Registry.load()
    student = load_student(run, device=device, allow_code=allow_code, registry=registry)
    if student.info["input"].get("boxes"):
        _say("note: the student was trained on the parts of pictures that boxes cut out; it is asked of whole pictures")
    names = class_names(student)
    top = min(top, len(names))
    given = answers(student, files, top=top, batch_size=batch_size, workers="auto" if workers is None else workers, registry=registry)
    seen = _Seen(sheet_limit if sheet is not None else 0)
    if out is None:
        _print(seen.watched(given, len(files), quiet=render.on_terminal()), top, as_json=as_json)
    else:
        _write(out, seen.watched(given, len(files)), top)
        render.line(f"{out}: {counted(len(files), 'image')}")
    if sheet is not None:
        from distillctl.commands.contact_sheet import write_sheet

        with _written(sheet):
            write_sheet(sheet, seen.first, classes=names, reading=student.transform.view.reading, title=str(run), of=len(files))
        left = f", the first of {len(files):,}: `--sheet-limit N` draws more" if len(seen.first) < len(files) else ""
        (_say if out is None else render.line)(f"{sheet}: {counted(len(seen.first), 'image')}{left}")  # away from printed answers
    if seen.broken:
        _say(f"error: {seen.broken:,} of {counted(len(files), 'image')} could not be used")
        for one in seen.named:
            _say(f"  {one.path}: {one.error}")
        if seen.broken > len(seen.named):
            _say(f"  and {seen.broken - len(seen.named):,} more, which the answers name")
        raise typer.Exit(1)


class _Seen:
    """What is remembered of the predictions that went by.

    first: the first of them, for the sheet.
    broken: number of files without an answer, the first of which are `named`.
    """

    def __init__(self, kept: int) -> None:
        self.first: list[Prediction] = []
        self.named: list[Prediction] = []
        self.broken = 0
        self._kept = kept

    def watched(self, predictions: Iterator[Prediction], total: int, *, quiet: bool = False) -> Iterator[Prediction]:
        """Lets predictions through, and unless `quiet` says on a terminal how many there were."""
        began = said = time.monotonic()
        shown = not quiet and sys.stderr.isatty()
        try:
            for number, one in enumerate(predictions, 1):
                if len(self.first) < self._kept:
                    self.first.append(one)
                if one.problem is not None:
                    self.broken += 1
                    if len(self.named) < _NAMED:
                        self.named.append(one)
                yield one
                if shown and (now := time.monotonic()) - said > 0.2:
                    said = now
                    sys.stderr.write(f"\r{number:,} of {total:,} images, {number / (now - began):,.0f} a second\x1b[K")
                    sys.stderr.flush()
        finally:
            if shown:
                sys.stderr.write("\r\x1b[K")  # the line is empty again
                sys.stderr.flush()


def _check_target(path: Path | None, endings: Collection[str], where: str) -> None:
    """Says before anything is computed whether a file can be what it is asked to be.

    Raises:
        ProfileError: it has another ending, is a folder, or would lie in a folder that is not there.
    """
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise ProfileError(f"`{path}` ends in none of {', '.join(f'`{ending}`' for ending in endings)}", where=where)
    if path.is_dir():
        raise ProfileError(f"`{path}` is a folder", where=where)
    if not path.parent.is_dir():
        raise ProfileError(f"there is no folder `{path.parent}`", where=where)


def _files(names: list[str], null: bool) -> list[str]:
    """The image files that are named, then those on standard input if `-` is among the names.

    Raises:
        ProfileError: there is none, or one of the names leads to none.
    """
    files = image_paths([name for name in names if name != "-"], _WHERE)
    if "-" not in names:
        return files
    if sys.stdin is None or (names == ["-"] and sys.stdin.isatty()):
        raise ProfileError("no images are named", where=_WHERE, hint="name files, folders or patterns, or pipe a list of paths")
    # Bytes, since names of files may be no UTF-8.
    read = os.fsdecode(sys.stdin.buffer.read())
    listed = [line for line in (read.split("\0") if null else read.replace("\r\n", "\n").split("\n")) if line]
    if not listed and not files:
        raise ProfileError("standard input names no images", where=_WHERE, hint="a path a line, or name files, folders or patterns")
    return files + listed_paths(listed, _WHERE)


def _print(predictions: Iterator[Prediction], top: int, *, as_json: bool) -> None:
    for one in predictions:
        if as_json:
            typer.echo(prediction_rows.json_line(one))
        elif render.on_terminal():
            typer.echo(prediction_rows.terminal_line(one, render.width() or _COLUMNS))
        else:
            typer.echo(prediction_rows.tab_line(one, top))


def _write(path: Path, predictions: Iterator[Prediction], top: int) -> None:
    """Writes beside the file and renames, so that under its name there is never a part of it."""

    def stream(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            row = prediction_rows.FILES[path.suffix.lower()](file, top)
            for one in predictions:
                row(one)

    with _written(path):
        write_atomically(path, stream)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Names the file that the system refuses to write."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise MachineError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def _say(text: str) -> None:
    typer.echo(one_line(text), err=True)
