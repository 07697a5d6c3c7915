"""What one sees while a run goes on: a live display on a terminal, plain lines when piped, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol

from distillctl.commands.train import Audience
from distillctl.engine.evaluate import Evaluation
from distillctl.engine.experiment import MAIN, Experiment, Part
from distillctl.engine.meter import Reading
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import RunDirectory
from distillctl.text import one_line


class Shown(Audience, Protocol):
    """An audience that is opened and closed around a run."""

    def __enter__(self) -> Shown: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def audience(*, quiet: bool) -> Shown:
    """The display that suits the output."""
    if quiet:
        return Quiet()
    return Live() if sys.stdout.isatty() else Plain()


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Quiet:
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def start(self, profile: Profile, run: RunDirectory, experiment: Experiment, resumed_at: int) -> None:
        """The loop begins."""

    def note(self, text: str) -> None:
        """A line."""

    def teacher(self, evaluation: Evaluation, split: str) -> None:
        """The teacher's accuracy."""

    def batch(self, part: Part, epoch: int, done: int, steps: int, reading: Reading, rate: float, lr: float) -> None:
        """Progress within an epoch."""

    def epoch(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""


class Plain(Quiet):
    """One line an epoch, and one about every ten seconds within long ones."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._left_epochs = 0
        self._seconds: list[float] = []
        self._best: tuple[float, int] | None = None
        self._spoke = time.perf_counter()

    def __enter__(self) -> Plain:
        return self

    def note(self, text: str) -> None:
        self._say(text)

    def start(self, profile: Profile, run: RunDirectory, experiment: Experiment, resumed_at: int) -> None:
        self._parts, self._seconds, self._best = {part.name: part.epochs for part in experiment.parts}, [], None
        for record in run.records()[:resumed_at]:
            self._remember(record)
        self._left_epochs = experiment.epochs - resumed_at
        names = profile.student.spec.name, "+".join(m.spec.name for m in profile.methods)
        self._say(f"run: {run.path}")
        self._say(f"data: {experiment.splits.description}")
        for part in experiment.parts[:-1]:
            self._say(f"first {part.name}: {part.epochs} epochs")
        epochs = f"{profile.train.epochs} epochs of {experiment.loader.steps} steps"
        self._say(f"student {names[0]} with {names[1]}: {epochs} on {experiment.device}")
        if resumed_at:
            self._say(f"continued after epoch {resumed_at}")

    def teacher(self, evaluation: Evaluation, split: str) -> None:
        self._say(f"teacher: {evaluation.metrics.top1:.2%} on {split}")

    def batch(self, part: Part, epoch: int, done: int, steps: int, reading: Reading, rate: float, lr: float) -> None:
        if time.perf_counter() - self._spoke >= 10:
            terms = terms_line(reading.total, reading.terms)
            self._say(f"{self._place(part.name, epoch)} {done / steps:4.0%}  {terms}  lr {lr:.3g}  {rate:.0f} images/s")

    def epoch(self, record: dict[str, Any]) -> None:
        self._remember(record)
        self._left_epochs -= 1
        place = self._place(record["phase"], record["epoch"])
        parts = [place, terms_line(record["total"], record["terms"]), f"lr {record['lr']:.3g}"]
        if "train_top1" in record:
            parts.append(f"train {record['train_top1']:.2%}")
        parts += [f"{split} {record[split]['top1']:.2%}" for split in ("val", "test") if split in record]
        if self._best is not None:
            parts.append(f"best {self._best[0]:.2%} ({self._best[1]})")
        parts.append(f"{record['images_per_second']:.0f} images/s")
        parts.append(f"left {duration(self.left)}")
        self._say("  ".join(parts))

    def _place(self, phase: str, epoch: int) -> str:
        """`epoch 3/240`, or `ft.paraphraser 3/30` in a phase."""
        return f"{'epoch' if phase == MAIN else phase} {epoch}/{self._parts[phase]}"

    @property
    def left(self) -> float:
        """Seconds to the end of the run, by the mean of the last epochs."""
        recent = self._seconds[-5:]
        return self._left_epochs * sum(recent) / len(recent) if recent else 0.0

    def _remember(self, record: dict[str, Any]) -> None:
        self._seconds.append(float(record.get("seconds", 0.0)))
        if "val" in record and (self._best is None or record["val"]["top1"] >= self._best[0]):
            self._best = (record["val"]["top1"], record["epoch"])

    def _say(self, text: str) -> None:
        self._spoke = time.perf_counter()
        print(one_line(text), flush=True)  # noqa: T201 - this is the plain display


def terms_line(total: float, terms: dict[str, float]) -> str:
    """`total 1.23  task 0.9  kd 2.1`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in {"total": total, **terms}.items())


class Live(Plain):
    """A display that is redrawn in place, above which finished epochs scroll away."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console()
        self._live = RichLive(console=self._console, refresh_per_second=4, transient=True)
        self._teacher_line = ""
        self._lr = 0.0

    def __enter__(self) -> Live:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def teacher(self, evaluation: Evaluation, split: str) -> None:
        super().teacher(evaluation, split)
        self._teacher_line = f"{evaluation.metrics.top1:.2%} on {split}"

    def batch(self, part: Part, epoch: int, done: int, steps: int, reading: Reading, rate: float, lr: float) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        rest = (steps - done) * reading.images / done / rate
        table.add_row(Text(one_line(self._place(part.name, epoch))), ProgressBar(steps, done, width=40), f"{done}/{steps}")
        table.add_row("left", duration(rest + self.left - (self.left / max(self._left_epochs, 1))), f"{rate:.0f} images/s")
        table.add_row("lr", f"{lr:.4g}", "")
        for name, value in {"total": reading.total, **reading.terms}.items():
            table.add_row(Text(one_line(name)), f"{value:.5g}", "")
        if reading.top1 is not None:
            table.add_row("train top-1", f"{reading.top1:.2%}", "")
        if self._teacher_line:
            table.add_row("teacher", Text(one_line(self._teacher_line)), "")
        if self._best is not None:
            table.add_row("best", f"{self._best[0]:.2%} in epoch {self._best[1]}", "")
        self._live.update(table)

    def _say(self, text: str) -> None:
        self._spoke = time.perf_counter()
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
