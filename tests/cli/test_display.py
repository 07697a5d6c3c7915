"""The display on a terminal: what it shows while an epoch runs, and that it opens and closes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from distillctl.api.tracker import RunStart, StepReport, Tracker
from distillctl.cli.display import Live, Plain, Quiet, audience, folded
from distillctl.testing import make_task
from distillctl.text import duration

REPORT = StepReport("main", 2, 3, 9, 0.3625, {"task": 2.5, "kd": 0.125}, {"top1": 0.25}, 300, 50.0, 0.05)
RECORD = {
    "phase": "main",
    "epoch": 1,
    "total": 0.5,
    "terms": {"task": 2.0},
    "lr": 0.05,
    "train_top1": 0.5,
    "val": {"top1": 0.75},
    "images_per_second": 100.0,
    "seconds": 60.0,
}


def start(*parts: tuple[str, int]) -> RunStart:
    task = make_task()
    path = Path("runs", "a-1")
    return RunStart(path, "a", {}, "made up", "resnet8", "kd", parts, 9, "cpu", task.metric, task.names, task.show)


def test_duration() -> None:
    assert [duration(s) for s in (0.4, 61, 3725)] == ["0:00", "1:01", "1:02:05"]


def test_audience_suits_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    for terminal, quiet, display in ((False, False, Plain), (True, False, Live), (True, True, Quiet)):
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        with audience(quiet=quiet) as shown:
            assert type(shown) is display
        with audience(quiet=quiet, talks=False) as shown:
            assert type(shown) is Tracker


def test_who_is_quiet_says_what_makes_figures_others_than_they_seem(capsys: pytest.CaptureFixture[str]) -> None:
    with audience(quiet=True) as shown:
        shown.note("teacher: found in runs/a")
        shown.note("WARNING: the teacher learnt 294 of the 445 test images")
    assert capsys.readouterr() == ("", "WARNING: the teacher learnt 294 of the 445 test images\n")


def test_live(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Live()
    with shown.live:
        shown.begin(start(("main", 3)))
        shown.epoch(RECORD)
        shown.batch(REPORT)
        table = shown.live.renderable
    assert "epoch 1/3  total 0.5  task 2" in capsys.readouterr().out
    drawn = Console(file=io.StringIO(), width=80)
    drawn.print(table)
    lines = [" ".join(line.split()) for line in drawn.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0].startswith("epoch 2/3")
    assert lines[0].endswith("3/9")
    # 6 steps of 100 images at 50 a second, and one whole epoch of a minute.
    assert lines[1:] == [
        "left 1:12 50 images/s",
        "lr 0.05",
        "total 0.3625",
        "task 2.5",
        "kd 0.125",
        "train top-1 25.00%",
        "best 75.00% in epoch 1",
    ]


def test_a_phase_is_shown_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Plain()
    shown.begin(start(("ft.paraphraser", 5), ("main", 3)))
    capsys.readouterr()
    record = {key: value for key, value in RECORD.items() if key not in ("train_top1", "val")}
    shown.epoch({**record, "phase": "ft.paraphraser", "epoch": 2, "terms": {"ft.paraphraser": 0.5}})
    line = capsys.readouterr().out
    assert line.startswith("ft.paraphraser 2/5  total 0.5  ft.paraphraser 0.5  lr 0.05  100 images/s  left 7:00")


def test_an_epoch_is_folded_between_its_parts_where_the_terminal_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = Plain()
    shown.begin(start(("main", 240)))
    capsys.readouterr()
    shown.epoch({**RECORD, "terms": {"task": 2.123456, "dkd.tckd": 0.123456, "dkd.nckd": 12.3456, "crd": 11.98765}, "test": {"top1": 0.5}})
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/240  total 0.5  task 2.123  dkd.tckd 0.1235  dkd.nckd 12.35  crd 11.99",
        "    lr 0.05  train 50.00%  val 75.00%  test 50.00%  best 75.00% (1)",
        "    100 images/s  left 3:59:00",
    ]
    assert folded(["a", "bb", "ccc"], 0) == ["a  bb  ccc"]
    assert folded(["a", "bb", "ccc"], 5) == ["a  bb", "    ccc"]


@pytest.mark.parametrize("display", [Plain, Live])
def test_a_note_is_broken_between_words(display: type[Plain], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    display().note("warning: a warm-up of twenty epochs is longer than the run, which has twelve")
    assert capsys.readouterr().out.splitlines() == [
        "warning: a warm-up of twenty epochs is",
        "    longer than the run, which has",
        "    twelve",
    ]
