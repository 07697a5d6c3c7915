"""What an evaluation leaves in files: in `evaluations/` of its run, or in a folder that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distillctl.analysis.differing import write_pictures
from distillctl.cli.class_table import csv_text
from distillctl.errors import MachineError, ProfileError
from distillctl.files import write_json, write_text
from distillctl.rundir.answers import FOLDER as PREDICTIONS
from distillctl.rundir.answers import write_answers

if TYPE_CHECKING:
    from distillctl.commands.evaluate import Report

FOLDER = "evaluations"

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def check_folder(path: Path) -> None:
    """Says before anything is computed whether files can lie in a folder.

    Raises:
        ProfileError: it is a file.
    """
    try:
        if path.exists() and not path.is_dir():
            raise ProfileError(f"`{path}` is a file", where="--out", hint="`--out` names a folder")
    except (OSError, ValueError) as error:
        raise ProfileError(f"`{str(path)[:80]}` is not a path", where="--out") from error


def write_evaluation(folder: Path, report: Report) -> None:
    """Writes `<split>-<checkpoint>[-tta].json`, what `--json` prints; where there are classes, `….csv` with a line for each, and
    `…-confusion.csv` with rows of true and columns of predicted classes. In a run's own folder the answers to all images, too, to
    `predictions/….npz`, and where the teacher was asked pictures for the report. Earlier files of the same names are replaced.

    Raises:
        MachineError: the folder cannot be written.
    """
    name = stem(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", report.as_dict())
        if report.classes:
            write_text(folder / f"{name}.csv", csv_text(_columns(report), _lines(report)))
        if report.run is not None and folder == report.run / FOLDER:
            for who, answers in report.answers.items():
                if who == "student" or not report.tta:
                    write_answers(report.run / PREDICTIONS / f"{name if who == 'student' else f'{report.split}-{who}'}.npz", answers)
            if report.pictures is not None:
                write_pictures(report.run, report.pictures)
        if report.confusion is not None:
            names = [str(line["name"]) for line in report.classes]
            rows = ((name, *counts) for name, counts in zip(names, report.confusion.tolist(), strict=True))
            write_text(folder / f"{name}-confusion.csv", csv_text(("true", *names), rows))
    except OSError as error:
        raise MachineError(f"the evaluation cannot be written to `{folder}`: {(error.strerror or str(error)).lower()}") from error


def stem(report: Report) -> str:
    """`test-best-flip`: split, checkpoint (of a file its name, of a network without a run also the model's) and augmentation."""
    checkpoint = Path(report.checkpoint).name
    parts = (report.split, *([report.model, checkpoint] if report.run is None else [checkpoint]), report.tta)
    return "-".join(_ODD.sub("_", part)[:80] for part in parts if part)


def _columns(report: Report) -> tuple[str, ...]:
    return "name", report.counts, *_figures(report)


def _lines(report: Report) -> Iterator[tuple[str | float | None, ...]]:
    for line in report.classes:
        yield line["name"], line["count"], *(line.get(column) for column in _figures(report))


def _figures(report: Report) -> tuple[str, ...]:
    return *(("correct",) if "correct" in report.classes[0] else ()), *report.class_figures
