"""What one sees while a run goes on: a live display on a terminal, plain lines when piped, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from distillctl.api.tracker import RunStart, StepReport, Tracker
from distillctl.cli.render import width, wrapped
from distillctl.engine.experiment import MAIN
from distillctl.text import counted, duration, one_line


@contextmanager
def audience(*, quiet: bool, talks: bool = True) -> Iterator[Tracker]:
    """The display that suits the output, open around all that a command trains. talks: not in the other processes of a run."""
    if not talks:
        yield Tracker()
    elif quiet:
        yield Quiet()
    elif sys.stdout.isatty():
        shown = Live()
        with shown.live:
            yield shown
    else:
        yield Plain()


class Quiet(Tracker):
    """Nothing but what makes the result another one than it seems, such as test images that the teacher has learnt."""

    def note(self, text: str) -> None:
        if text.startswith("WARNING"):
            for line in wrapped(text):
                print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the display


class Plain(Tracker):
    """One line an epoch, and one about every ten seconds within long ones."""

    _run: RunStart
    _seconds: list[float]  # of every finished epoch

    def __init__(self) -> None:
        super().__init__()
        self._best: tuple[float, int] | None = None
        self._spoke = time.perf_counter()

    def note(self, text: str) -> None:
        self._say(text)

    def begin(self, run: RunStart) -> None:
        self._run, self._seconds, self._best = run, [], None
        for record in run.records:
            self._remember(record)
        *phases, (_, epochs) = run.parts
        self._say(f"run: {run.path}")
        self._say(f"data: {run.data}")
        for name, count in phases:
            self._say(f"first {name}: {counted(count, 'epoch')}")
        length = f"{counted(epochs, 'epoch')} of {counted(run.steps, 'step')}"
        self._say(f"student {run.student} with {run.method}: {length} on {run.device}")
        if run.records:
            self._say(f"continued after epoch {len(run.records)}")

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self._say(f"teacher: {text} on {split}")

    def batch(self, report: StepReport) -> None:
        if time.perf_counter() - self._spoke >= 10:
            place = self._place(report.part, report.epoch)
            terms = terms_line(report.total, report.terms)
            rate = f"{report.images_per_second:.0f} images/s"
            self._say(f"{place} {report.done / report.steps:4.0%}  {terms}  lr {report.lr:.3g}  {rate}")

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._remember(record)
        place = self._place(record["phase"], record["epoch"])
        parts = [place, *terms_of(record["total"], record["terms"]), f"lr {record['lr']:.3g}"]
        metric = self._run.metric
        if f"train_{metric}" in record:
            parts.append(f"train {self._text(record[f'train_{metric}'])}")
        parts += [f"{split} {self._text(record[split][metric])}" for split in ("val", "test") if split in record]
        if self._best is not None:
            parts.append(f"best {self._text(self._best[0])} ({self._best[1]})")
        parts.append(f"{record['images_per_second']:.0f} images/s")
        parts.append(f"left {duration(self.left)}")
        for line in folded(parts, width()):
            self._say(line)

    def _text(self, value: float) -> str:
        """A value of the figure that chooses the best epoch."""
        return self._run.show(self._run.metric, value)

    def _place(self, phase: str, epoch: int) -> str:
        """`epoch 3/240`, or `ft.paraphraser 3/30` in a phase."""
        return f"{'epoch' if phase == MAIN else phase} {epoch}/{dict(self._run.parts)[phase]}"

    @property
    def left_epochs(self) -> int:
        """Those that are not finished."""
        return self._run.epochs - len(self._seconds)

    @property
    def left(self) -> float:
        """Seconds to the end of the run, by the mean of the last epochs."""
        recent = self._seconds[-5:]
        return self.left_epochs * sum(recent) / len(recent) if recent else 0.0

    def _remember(self, record: Mapping[str, Any]) -> None:
        self._seconds.append(float(record.get("seconds", 0.0)))
        if "val" in record and (self._best is None or record["val"][self._run.metric] >= self._best[0]):
            self._best = (record["val"][self._run.metric], record["epoch"])

    def _say(self, text: str) -> None:
        self._spoke = time.perf_counter()
        for line in wrapped(text):
            print(line, flush=True)  # noqa: T201 - this is the plain display


def terms_of(total: float, terms: Mapping[str, float]) -> list[str]:
    """`total 1.23`, `task 0.9`, `kd 2.1`."""
    return [f"{name} {value:.4g}" for name, value in {"total": total, **terms}.items()]


def terms_line(total: float, terms: Mapping[str, float]) -> str:
    """`total 1.23  task 0.9  kd 2.1`."""
    return "  ".join(terms_of(total, terms))


def folded(parts: Sequence[str], columns: int) -> list[str]:
    """Parts on as few lines as they need on a terminal of this width, all but the first indented; on one line where it is 0."""
    lines = [parts[0]]
    for part in parts[1:]:
        if columns and len(lines[-1]) + 2 + len(part) > columns:
            lines.append(f"    {part}")
        else:
            lines[-1] += f"  {part}"
    return lines


class Live(Plain):
    """A display that is redrawn in place, above which finished epochs scroll away.

    live: rich's display, to be opened.
    """

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console()
        self.live = RichLive(console=self._console, refresh_per_second=4, transient=True)
        self._teacher_line = ""

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        super().teacher(split, figures, text)
        self._teacher_line = f"{text} on {split}"

    def batch(self, report: StepReport) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        done, steps, rate = report.done, report.steps, report.images_per_second
        rest = (steps - done) * report.images / done / rate
        place = Text(one_line(self._place(report.part, report.epoch)))
        table.add_row(place, ProgressBar(steps, done, width=40), f"{done}/{steps}")
        table.add_row("left", duration(rest + self.left - (self.left / max(self.left_epochs, 1))), f"{rate:.0f} images/s")
        table.add_row("lr", f"{report.lr:.4g}", "")
        for name, value in {"total": report.total, **report.terms}.items():
            table.add_row(Text(one_line(name)), f"{value:.5g}", "")
        for name, value in report.figures.items():
            table.add_row(Text(one_line(f"train {self._run.names.get(name, name)}")), self._run.show(name, value), "")
        if self._teacher_line:
            table.add_row("teacher", Text(one_line(self._teacher_line)), "")
        if self._best is not None:
            table.add_row("best", f"{self._text(self._best[0])} in epoch {self._best[1]}", "")
        self.live.update(table)

    def _say(self, text: str) -> None:
        self._spoke = time.perf_counter()
        for line in wrapped(text):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
