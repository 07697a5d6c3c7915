"""Tables on terminals of any width, and through a pipe."""

from __future__ import annotations

import sys

import pytest

from distillctl.cli import render, run
from distillctl.text import counted

HEADERS = ("name", "summary", "paper", "version")
ROWS = [
    ["kd", "matches the softened class probabilities of student and teacher", "Hinton 2015", "0.1"],
    ["at", "short", "Zagoruyko 2017", "0.1"],
]


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, **options: object) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    render.table(HEADERS, ROWS, **options)  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_a_wide_table_loses_what_is_least_important_and_wraps_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    less = ("paper", "version")
    assert printed(capsys, monkeypatch, 120, less=less)[0].split() == list(HEADERS)
    assert printed(capsys, monkeypatch, 80, less=less)[0].split() == ["name", "summary", "version"]
    assert printed(capsys, monkeypatch, 40, less=less) == [
        "name  summary",
        "kd    matches the softened class",
        "      probabilities of student and",
        "      teacher",
        "at    short",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    lines = printed(capsys, monkeypatch, columns, less=("paper", "version"), indent=2)
    assert max(map(len, lines)) <= columns
    assert all(line.startswith("  ") for line in lines)


def test_without_a_terminal_every_row_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    render.table(HEADERS, ROWS, less=("paper",))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_person_sees_why_nothing_happens_yet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, loaded, shown in ((True, False, True), (False, False, False), (True, True, False)):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
            if loaded:
                patch.setitem(sys.modules, "torch", sys.modules.get("torch", sys))
            else:
                patch.delitem(sys.modules, "torch", raising=False)
            with render.loading():
                pass
        assert capsys.readouterr().err == ("loading torch …\r\x1b[K" if shown else "")


def test_words_break_between_words_below_themselves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "data       ten classes, 1154 images, carved-by-seed runs/a-very-long-name-of-a-run"
    monkeypatch.setenv("COLUMNS", "40")
    render.words(text, 11)
    assert capsys.readouterr().out.splitlines() == [
        "data       ten classes, 1154 images,",
        "           carved-by-seed",
        "           runs/a-very-long-name-of-a-run",  # which is to be copied, so that it is never broken
    ]
    monkeypatch.delenv("COLUMNS")
    render.words(text, 11)
    assert capsys.readouterr().out == f"{text}\n", "without a terminal nothing is broken"


def test_a_command_in_backticks_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert render.wrapped("hint: did you mean `a`? see `distillctl show kd` for all", 6) == [
        "hint: did you mean `a`? see",
        "      `distillctl show kd` for all",
    ]


def test_an_error_is_broken_between_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["show", "kdd"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: no method, model, data set or optimizer is called"
    assert lines[1] == "      `kdd`"
    assert max(map(len, lines)) <= 60


def test_one_thing_is_not_several() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1234)] == ["0 steps", "1 step", "2 steps", "1,234 steps"]


def test_several_wide_columns_become_narrower_together(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    render.table(("name", "one", "two"), [("a", "word " * 12, "other " * 9)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert not [word for line in lines[1:] for word in line.split() if word not in ("a", "word", "other")]
