"""`distillctl compare` as it is read: on a terminal, in papers, in spreadsheets, by scripts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.comparison import Comparison
from distillctl.cli import run
from distillctl.cli.comparison_formats import FORMATS, as_csv, as_data, as_html, as_latex, as_markdown, print_table
from distillctl.commands.compare import compare
from distillctl.rundir.directory import RunDirectory

EVIL = "</td><script>alert(1)</script>|_&%"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of a control, of a method that is better, and of one that is not and has another precision."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for seed in range(3):
        _made("none", seed, 0.9 + seed / 1000)
        _made("kd", seed, 0.92 + seed / 900)
        _made("dkd", seed, 0.905 - seed / 200)
    return tmp_path


def _made(method: str, seed: int, top1: float, *, precision: str = "fp32", at: str = "", **facts: Any) -> None:
    teacher = "[teacher]\nprofile = 't.toml'\n" if method != "none" else ""
    resolved = f"seed = {seed}\n{teacher}[method]\nname = '{method}'\n[train]\nprecision = {json.dumps(precision)}\n"
    state = {"name": "a", "digest": "", "method": method, "epochs": 1, "epoch": 1, "best_epoch": 1, "seconds": 90.0, **facts}
    made = RunDirectory.create(
        Path("runs", at or f"{method}-{precision}-{seed}"), profile=b"", resolved=resolved, environment={}, state=state
    )
    figures = {"epoch": 1, "top1": top1, "loss": 1 - top1}
    costs = {"student": {"macs": 2_000_000}, "teacher": {"macs": 9_000_000}, "forwards": {"student": 1200, "teacher": 1100}, "images": 1000}
    made.append({"phase": "main", "epoch": 1, "forwards": {"student": 1100, "teacher": 1000}, "val": {"top1": top1, "count": 100}})
    made.update(state="finished", costs=costs, result={"split": "test", "chosen_on": "val", "best": figures, "last": figures})


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run(["compare", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("folder")
def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(capsys)
    assert max(map(len, lines)) <= 80
    assert lines[0] == "top-1 in % on test, of the epoch chosen on val"
    assert lines[2:6] == [
        "method  n       top-1 %  difference   95 % interval       p  Wilcoxon",
        "none    3  90.10 ± 0.10",
        "dkd     3  90.00 ± 0.50     -0.10    [-1.59, +1.39]   0.800     0.750",
        "kd      3  92.11 ± 0.11     +2.01 *  [+1.98, +2.04]  <0.001     0.250",
    ]
    text = " ".join(" ".join(lines).split())
    assert "difference: points, to `none`, paired over the seeds of both" in text
    assert "p: of the paired t-test, adjusted for 2 comparisons by Holm's method; *: outside noise, p below 0.05" in text
    assert "with as few seeds it is at least 0.250, never below 0.05" in text
    assert (
        "beside method, nothing differs in settings, packages, device, processes and data, but for options that belong to a method" in text
    )
    # 1100 forwards, 1000 of them trained, 100 at the end: 2 M·(1200 + 2000) + 9 M·1100.
    assert "none 1.00 k 1.20 k 1.10 k 16.3 G 1:30" in text


@pytest.mark.usefixtures("folder")
def test_on_a_narrow_terminal_each_group_is_a_block(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    lines = printed(capsys)
    at = lines.index("method kd")
    assert [line.split(maxsplit=1)[0] for line in lines[at + 1 : at + 6]] == ["n", "top-1", "difference", "95", "p"]
    assert "  difference     +2.01 *" in lines
    assert "  difference     -0.10" in lines
    table = lines[: lines.index("±: sample standard deviation over seeds")]
    assert max(map(len, table)) <= 44


@pytest.mark.usefixtures("folder")
def test_runs_that_differ_in_precision_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for seed in range(2):
        _made("fitnet", seed, 0.93 + seed / 500, precision="bf16", packages={"torch": "2.14"})
        _made("at", seed, 0.93 + seed / 400, packages={"torch": "2.15"})
    text = "\n".join(printed(capsys))
    assert "note: no control for `fitnet`: the runs from labels alone differ from it in `train.precision`" in text
    assert "beside method, the runs differ in\n  train.precision  fp32: all others; bf16: `fitnet`" in text
    assert "  package torch  2.15: `at`; 2.14: `fitnet`" in text
    told = "\n".join(printed(capsys, "--control", "none", "--format", "md"))
    assert "train.precision: fp32: all others; bf16: `fitnet`" in told
    assert "no control" not in told


@pytest.mark.usefixtures("folder")
def test_each_form_has_the_groups_and_marks_what_is_outside_noise() -> None:
    found = compare()
    markdown, latex, page = as_markdown(found), as_latex(found), as_html(found)
    assert "| kd | 3 | 92.11 ± 0.11 | **+2.01** | \\[+1.98, +2.04\\] | <0.001 | 0.250 |".replace("<", "&lt;") in markdown
    assert "| dkd | 3 | 90.00 ± 0.50 | -0.10 |" in markdown
    assert "| :-- | --: | --: | --: |" in markdown
    assert r"kd & 3 & 92.11 $\pm$ 0.11 & \textbf{+2.01} & {[}+1.98, +2.04] & $<$0.001 & 0.250 \\" in latex
    assert r"method & n & top-1 \% & difference" in latex
    assert latex.count(r"\textbf") == markdown.count("**+") == page.count("<b>") == 1
    for text in (markdown, page):
        assert "bold: outside noise, p below 0.05" in text
    assert "<li>difference: points, to <code>none</code>, paired over the seeds of both</li>" in page
    assert all(line.startswith(("%", "\\", "method", "none", "kd", "dkd")) for line in latex.splitlines()), "notes are comments"


@pytest.mark.usefixtures("folder")
def test_csv_has_a_row_for_each_group_with_all_digits() -> None:
    found = compare()
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["group"] for row in rows] == ["none", "dkd", "kd"]
    for row, group in zip(rows, found.groups, strict=True):
        assert (float(row["mean"]), float(row["sd"]), row["seeds"], row["n"]) == (group.mean, group.sd, "0 1 2", "3")
        against = group.against
        if against is None:
            assert (row["control"], row["p"]) == ("", "")
            continue
        assert against.t is not None
        told = [float(row[name]) for name in ("difference", "low", "high", "statistic", "p", "p_holm")]
        assert told == [against.mean, against.t.low, against.t.high, against.t.statistic, against.t.p, against.adjusted]
        assert row["outside_noise"] == against.verdict
        assert float(row["macs"]) == group.compute.macs


@pytest.mark.usefixtures("folder")
def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads("\n".join(printed(capsys, "--json")))
    assert data == json.loads(json.dumps(as_data(compare())))
    assert data == json.loads("\n".join(printed(capsys, "--format", "json")))
    kd = data["groups"][2]
    assert kd["seeds"] == pytest.approx({"0": 0.92, "1": 0.92 + 1 / 900, "2": 0.92 + 2 / 900})
    assert kd["against"]["pairs"][0] == {"seed": 0, "control": 0.9, "value": 0.92, "difference": 0.02}
    assert kd["against"]["wilcoxon"]["p"] == 0.25
    assert kd["against"]["t"]["p"] < kd["against"]["adjusted"] < 0.05
    assert sorted(kd["runs"]) == [f"runs/kd-fp32-{seed}" for seed in range(3)]
    assert (data["metric"], data["split"], data["by"]) == ("top1", "test", ["method"])


class _Tags(HTMLParser):
    """Counts tags, and keeps what is text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("folder")
def test_names_are_text_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    _made("kd", 0, 0.9, precision=f"{EVIL}\x1b[31m", at="evil")
    found = compare(by=["method", "train.precision"])
    page = _Tags(as_html(found))
    assert "script" not in page.tags
    assert EVIL in page.text
    assert "<script" not in as_markdown(found)
    cells = [line for line in as_markdown(found).splitlines() if line.startswith("|") and "alert" in line]
    assert len(cells) == 2, "its row, and that of its compute"
    assert all(re.search(r"(?<!\\)\|_", line) is None for line in cells)
    assert r"$<$/td$>$$<$script$>$alert(1)$<$/script$>$|\_\&\%" in as_latex(found)
    for form in (*FORMATS.values(), _printed(capsys)):
        assert "\x1b" not in form(found)


def _printed(capsys: pytest.CaptureFixture[str]) -> Callable[[Comparison], str]:
    def form(found: Comparison) -> str:
        print_table(found)
        return capsys.readouterr().out

    return form


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "xml"], "unknown format `xml`"),
        (["--split", "train"], "unknown split `train`"),
        (["nothing"], "there is no run `nothing`"),
        (["--by", "lr"], "no run has a setting `lr`"),
        (["--control", "crd"], "no group and no compared run is called `crd`"),
    ],
    ids=str,
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", *arguments]) == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_notes_of_csv_are_on_the_other_stream(capsys: pytest.CaptureFixture[str]) -> None:
    _made("kd", 0, 0.92, at="copy")
    assert run(["compare", "--format", "csv"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 4
    assert told.err == "note: `kd` has 4 runs, of which 1 repeats the seed and the results of another: left out\n"


@pytest.mark.usefixtures("folder")
def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    last = json.loads(
        "\n".join(printed(capsys, "--last", "--split", "val", "--by", "method,precision", "--json", "runs/kd*", "none-fp32-*"))
    )
    assert (last["at"], last["split"], last["by"], len(last["groups"])) == ("last", "val", ["method", "train.precision"], 2)
    equal = "\n".join(printed(capsys, "--per-compute"))
    assert equal.startswith("top-1 in % on val, at equal compute: of the best epoch within 16.3 G MACs a run\n")
    assert "figures of val are those by which the epoch was chosen, and therefore too good" in equal
