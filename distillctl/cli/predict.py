"""`distillctl predict`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from distillctl.cli import coco_results, completion, options, prediction_rows, render
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
_SHOWN = 0.5
"""Score from which on boxes are drawn and shown on a terminal."""
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
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="N", help="Answers to each image (5 classes, or all boxes).", show_default=False)
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0,
            max=1,
            metavar="S",
            help="Leave out boxes with a smaller score (0.5 where they are drawn or shown on a terminal).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a .csv or .jsonl file, or of boxes COCO's .json, which is there when all is done."
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="Draw a contact sheet, a .png or .jpg file: pictures with answers.")
    ] = None,
    draw: Annotated[Path | None, typer.Option("--draw", metavar="FOLDER", help="Draw each picture with its boxes.")] = None,
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
    """Classify images with the student of a run, or find objects in them, read as its evaluation reads them.

    Answers are printed as they come: what fits on a line of a terminal, or all between tabs where a program reads them. A broken file is
    named, the others go on, and the exit code is 1.

    Examples:
        distillctl predict runs/NAME photos/ --out answers.csv --sheet sheet.png

        find photos -name '*.jpg' | distillctl predict runs/NAME --top 1 --json
    """
    check_student(run, "predict RUN", of_a_file="the run comes first, and then the images")
    if out is not None and as_json:
        raise ProfileError("`--json` prints the answers, and `--out` writes them", where="--json", hint="`--out FILE.jsonl` has JSON")
    _check_target(out, prediction_rows.BOX_FILES, "--out")
    _check_target(sheet, _SHEETS, "--sheet")
    files = _files(paths or ["-"], null)
    with render.loading():
        from distillctl.build.student import load_student
        from distillctl.commands.predict import TOP, class_names, task_of
        from distillctl.commands.predict import predict as answers
    from distillctl.plugin.registry import Registry

    registry = Registry.load()
    student = load_student(run, device=device, allow_code=allow_code, registry=registry)
    if student.info["input"].get("boxes"):
        _say("note: the student was trained on the parts of pictures that boxes cut out; it is asked of whole pictures")
    names, reading = class_names(student), student.transform.view.reading
    boxes = task_of(student, registry).answers == "boxes"
    if not boxes:
        _check_without_boxes(out, draw, min_score)
        top = min(top or TOP, len(names))
    given = answers(
        student,
        files,
        top=top,
        min_score=min_score or 0.0,
        batch_size=batch_size,
        workers="auto" if workers is None else workers,
        registry=registry,
    )
    shown = 0.0 if not boxes else _SHOWN if min_score is None else min_score
    drawing = None if draw is None else _drawing(draw, files, names, reading)
    seen = _Seen(sheet_limit if sheet is not None else 0, shown, drawing)
    watched = seen.watched(given, len(files), quiet=out is None and render.on_terminal())
    if out is None:
        _print(watched, top or 0, shown, as_json=as_json, boxes=boxes)
    else:
        categories = dict(zip(names, student.info.get("class_ids") or range(len(names)), strict=True))
        write = (prediction_rows.BOX_FILES if boxes else prediction_rows.FILES)[out.suffix.lower()]
        _write(out, lambda file: write(file, watched, top=top, images=coco_results.image_ids(files), categories=categories))
        render.line(f"{out}: {counted(len(files), 'image')}")
    if sheet is not None:
        from distillctl.commands.contact_sheet import write_sheet

        with _written(sheet):
            write_sheet(sheet, seen.first, classes=names, reading=reading, title=str(run), of=len(files), boxes=boxes)
        left = f", the first of {len(files):,}: `--sheet-limit N` draws more" if len(seen.first) < len(files) else ""
        (_say if out is None else render.line)(f"{sheet}: {counted(len(seen.first), 'image')}{left}")  # away from printed answers
    if draw is not None:
        (_say if out is None else render.line)(f"{draw}: {counted(len(files) - seen.broken, 'picture')}")
    if seen.broken:
        _say(f"error: {seen.broken:,} of {counted(len(files), 'image')} could not be used")
        for one in seen.named:
            _say(f"  {one.path}: {one.error}")
        if seen.broken > len(seen.named):
            _say(f"  and {seen.broken - len(seen.named):,} more, which the answers name")
        raise typer.Exit(1)


class _Seen:
    """What is remembered of the predictions that went by.

    first: the first of them, for the sheet, with the answers that reach the score that is drawn.
    broken: number of files without an answer, the first of which are `named`.
    """

    def __init__(self, kept: int, score: float = 0.0, draw: Callable[[Prediction], None] | None = None) -> None:
        self.first: list[Prediction] = []
        self.named: list[Prediction] = []
        self.broken = 0
        self._kept, self._score, self._draw = kept, score, draw

    def watched(self, predictions: Iterator[Prediction], total: int, *, quiet: bool = False) -> Iterator[Prediction]:
        """Lets predictions through, and unless `quiet` says on a terminal how many there were."""
        began = said = time.monotonic()
        shown = not quiet and sys.stderr.isatty()
        try:
            for number, one in enumerate(predictions, 1):
                if len(self.first) < self._kept:
                    self.first.append(one.above(self._score))
                if self._draw is not None:
                    self._draw(one.above(self._score))
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


def _check_without_boxes(out: Path | None, draw: Path | None, min_score: float | None) -> None:
    """What is asked of boxes means nothing for a student that tells classes apart.

    Raises:
        ProfileError: it is asked for.
    """
    asked = (
        ("--draw", draw is not None, "`--sheet FILE` draws pictures with answers"),
        ("--min-score", min_score is not None, "leave it out"),
        ("--out", out is not None and out.suffix.lower() not in prediction_rows.FILES, "`--out FILE.jsonl` has JSON"),
    )
    for where, is_asked, hint in asked:
        if is_asked:
            named = f"--out {out}" if where == "--out" else where
            raise ProfileError(f"`{named}` is for boxes, and this student tells classes apart", where=where, hint=hint)


def _drawing(folder: Path, files: list[str], classes: Sequence[str], reading: Mapping[str, Any]) -> Callable[[Prediction], None]:
    """What draws a prediction into a folder."""
    from distillctl.commands.drawn_boxes import DrawnBoxes

    with _written(folder):
        drawn = DrawnBoxes(folder, files, classes=classes, reading=reading)

    def draw(one: Prediction) -> None:
        with _written(folder):
            drawn.draw(one)

    return draw


def _print(predictions: Iterator[Prediction], top: int, score: float, *, as_json: bool, boxes: bool) -> None:
    """score: that boxes on a terminal reach."""
    for one in predictions:
        if as_json:
            typer.echo(prediction_rows.json_line(one))
        elif render.on_terminal():
            typer.echo(prediction_rows.terminal_line(one.above(score), render.width() or _COLUMNS))
        elif boxes:
            typer.echo("\n".join(prediction_rows.box_lines(one)))
        else:
            typer.echo(prediction_rows.tab_line(one, top))


def _write(path: Path, write: Callable[[TextIO], None]) -> None:
    """Writes beside the file and renames, so that under its name there is never a part of it."""

    def stream(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write(file)

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
