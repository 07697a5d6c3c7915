"""Reports of runs as pages, and plots for papers. Reads run directories alone, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distillctl.analysis.control import control_beside
from distillctl.analysis.places import missing_of_sweeps, named_runs, without_teachers
from distillctl.analysis.records import RunRecord, find_runs
from distillctl.errors import DataError, MachineError, Problem, ProfileError
from distillctl.files import write_text
from distillctl.pages.plots import FORMATS, check_matplotlib, write_plots
from distillctl.pages.run_page import run_page
from distillctl.pages.runs_page import runs_page
from distillctl.rundir.directory import ROOT

NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """What a report is.

    path: the page.
    runs: how many runs it is of.
    notes: what is left out, and why, a sentence each.
    plots: the files of plots.
    """

    path: Path
    runs: int
    notes: Sequence[str] = ()
    plots: Sequence[Path] = field(default_factory=list)


def report(
    runs: str | Path | Sequence[str | Path] = (), *, out: str | Path | None = None, plots: str = "", root: str | Path = ROOT
) -> Written:
    """Writes the report of a run, or of several: what `distillctl report` does.

        report("runs/birds")
        report(["runs/temperatures"], plots="svg")

    Args:
        runs: run directories, folders of runs or sweeps, patterns, or names below `root`; without any the newest finished run.
        out: the page; by default `report.html` in the run directory or in the one folder that is named, else in the current directory.
        plots: `svg`, `pdf` or `png`: curves are written as files, too, into the folder `plots` beside the page.
        root: where runs lie.

    Raises:
        DistillError: there is no such run, or the page cannot be written.
    """
    if plots and plots not in FORMATS:
        raise ProfileError(f"`{plots}` is not a format of plots", where="--plots", hint=f"allowed: {', '.join(FORMATS)}")
    if plots:
        check_matplotlib()
    names = [runs] if isinstance(runs, str | Path) else list(runs)
    found = named_runs(names, Path(root)) if names else find_runs([Path(root)])
    meant, notes = without_teachers(found.runs, names)
    notes += missing_of_sweeps(meant)
    if not names:
        meant, notes = [run for run in found.runs if run.finished][:1], []
    if not meant:
        if names:
            raise DataError([Problem(f"the run `{path}` cannot be read: {why}") for path, why in found.damaged])
        raise DataError(f"there is no finished run below `{root}`", hint="train one, or name a run directory")
    damaged = [f"`{path}` is left out: {why}" for path, why in found.damaged] if names else []
    path = _place(meant, names, Path(root)) if out is None else _checked(Path(out))
    control = control_beside(meant[0].path) if len(meant) == 1 else None
    if len(meant) == 1:
        _write(path, run_page(meant[0], control))
    else:
        title = Path(names[0]).name if len(names) == 1 else ""
        _write(path, runs_page(title or f"{len(meant)} runs", meant, [*damaged, *notes]))
    drawn = write_plots(path.parent / "plots", meant, control, plots) if plots else []
    return Written(path, len(meant), [*damaged, *notes], drawn)


def write_run_report(run: Path) -> Path:
    """Writes the report of one run into its directory.

    Raises:
        DistillError: the run cannot be read, or the page not be written.
    """
    _write(run / NAME, run_page(RunRecord.read(run), control_beside(run)))
    return run / NAME


def _place(runs: Sequence[RunRecord], names: Sequence[str | Path], root: Path) -> Path:
    """In the run, or in the one folder that is named; else here."""
    if len(runs) == 1:
        return runs[0].path / NAME
    folders = [place for name in names[:1] for place in (Path(name), root / name) if place.is_dir()]
    return folders[0] / NAME if folders and len(names) == 1 else Path(NAME)


def _checked(path: Path) -> Path:
    """A file that is named.

    Raises:
        ProfileError: a page cannot be written there.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ProfileError(f"`{path}` does not end in `.html`", where="--out")
    if path.is_dir():
        raise ProfileError(f"`{path}` is a folder", where="--out")
    if not path.parent.is_dir():
        raise ProfileError(f"there is no folder `{path.parent}`", where="--out")
    return path


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise MachineError(
            f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}", hint="`--out FILE` names another place"
        ) from error
