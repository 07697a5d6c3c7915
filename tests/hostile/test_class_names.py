"""Names of classes are somebody's folders: harmless in a terminal, in JSON, in CSV and in HTML."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from distillctl.cli import run
from distillctl.testing.trees import write_tree
from distillctl.text import csv_cell, html_text, json_text, one_line

NAMES = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J\x1b[H", "\x9b31m", "[red]markup", "[link=x]here", "<script>alert(1)<",
    "<img src=x onerror=alert(1)>", "&lt;b&gt;&amp;", "\"' onmouseover='x'", "=cmd|' C calc'!A0", "+1+1", "-1+1", "@SUM(A1)",
    " =1+1", "\t=1+1", "\r=1+1", "＝1+1", "a,b;c\td", 'say "hi"', "two\nlines", "back\bspace", "\u202egnp.exe", "\u2066hidden\u2069",
    "zero\u200bwidth", "\ufeffmark", "emoji 🦜", "中文", "n" * 85, "{name}", "%s%n", "$(reboot)", "`reboot`", "'; DROP TABLE birds; --",
    "~", "-rf", "bird;=HYPERLINK(1)",
]  # fmt: skip
NOT_AS_FOLDERS = [
    "[red]markup[/red]",
    "[link=https://example.org]here[/link]",
    "</td></tr></table><script>",
    "/etc/passwd",
    "half \ud800",
    "x" * 10_000,
    "null \0",
    "",
]
EVIL = "evil\x1b[31m\u202e[red]"
PROFILE = """
[dataset]
name = "imagefolder"
root = "evil\\u001b[31m\\u202e[red]"
image_size = 32
val_fraction = 0.5
augment = "none"
[student]
name = "resnet8"
[train]
epochs = 1
workers = 0
"""


class Page(HTMLParser):
    """Tags, and the text of every cell."""

    def __init__(self):
        super().__init__()
        self.tags = set()
        self.cells = []
        self._in_cell = False

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if self._in_cell or (tag == "td"):
            self._in_cell = True
            self.cells.append("")
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_endtag(self, tag):
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run on such classes, of a profile and with a path that are no better, and what its training and checking printed."""
    folder = tmp_path_factory.mktemp("hostile")
    write_tree(folder / "birds", dict.fromkeys(NAMES, 2))
    (folder / EVIL).symlink_to(folder / "birds")
    (folder / f"{EVIL}.toml").write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            assert run(["check", f"{EVIL}.toml"]) == 0, out.getvalue()
            assert run(["train", f"{EVIL}.toml", "--device", "cpu"]) == 0, out.getvalue()
            assert run(["train", f"{EVIL}.toml", "--device", "cpu", "--dry-run"]) == 0, out.getvalue()
            assert run(["bench", f"{EVIL}.toml", "--device", "cpu", "--steps", "1", "--warmup", "1"]) == 0, out.getvalue()
    return folder, out.getvalue()


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def steers_nothing(text):
    return all(c.isprintable() or c == "\n" for c in text)


def test_training_and_checking(trained):
    assert steers_nothing(trained[1])
    assert "epoch 1/1" in trained[1]
    shown = "evil\\x1b[31m\\u202e[red]"
    assert f"ok: {shown}.toml has no problems" in trained[1]
    assert f"run: runs/{shown}-" in trained[1], "the display"
    assert f"run        runs/{shown}-" in trained[1], "the result, and the plan"


@pytest.mark.slow
def test_a_live_display(inside):
    """On a terminal of its own, with nothing in it that the display did not put there."""
    main, side = pty.openpty()
    command = [sys.executable, "-m", "distillctl", "train", f"{EVIL}.toml", "--device", "cpu", "--fresh"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        seen = b""
        while True:
            try:
                block = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not block:
                break
            seen += block
        assert process.wait(120) == 0, seen
    os.close(main)
    text = seen.decode()
    assert "run: runs/evil\\x1b[31m\\u202e[red]-" in text
    assert "\u202e" not in text
    assert "evil\x1b" not in text


def test_a_table_of_the_classes(inside, capsys):
    assert run(["eval", "--split", "val", "--per-class", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert steers_nothing(out)
    lines = out.splitlines()[-len(NAMES) :]
    assert all(line.startswith("  ") and line.endswith("/1") for line in lines), "one line a class"
    assert "  [red]markup  " in out
    assert "  \\x1b[31mred\\x1b[0m  " in out
    assert max(map(len, lines)) < 110
    assert f"  {'n' * 79}…  " in out


def test_json(inside, capsys):
    assert run(["eval", "--split", "val", "--json", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert steers_nothing(out)
    assert {entry["name"] for entry in json.loads(out)["classes"]} == set(NAMES)


def test_files(inside, capsys):
    for name in ("classes.csv", "classes.HTML"):
        assert run(["eval", "--split", "val", "--classes", name, "--device", "cpu"]) == 0
    text = (inside / "classes.csv").read_text(encoding="utf-8")
    assert steers_nothing(text)
    assert {row[0].partition(",")[0] for row in csv.reader(text.splitlines(), delimiter=";")} >= {"bird;=HYPERLINK(1)"}
    assert not any(cell.startswith("=") for row in csv.reader(text.splitlines(), delimiter=";") for cell in row)
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["name", "images", "correct", "accuracy"]
    assert len(rows) == 1 + len(NAMES)
    assert not any(row[0].lstrip()[:1] in tuple("=+-@＝") for row in rows)
    assert {row[0] for row in rows} >= {"'=cmd|' C calc'!A0", "'-1+1", "'  =1+1".replace("  ", " "), 'say "hi"', "a,b;c d", "two lines"}
    assert all((row[1], float(row[3])) == ("1", float(row[2])) for row in rows[1:])

    page = Page()
    text = (inside / "classes.HTML").read_text(encoding="utf-8")
    page.feed(text)
    assert steers_nothing(text)
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(page.cells) == 4 * len(NAMES)
    assert {"<script>alert(1)<", "&lt;b&gt;&amp;", "{name}"} <= set(page.cells[::4])


def test_the_student_remembers_the_names_as_they_are(inside):
    info = json.loads(next((inside / "runs").glob("*/model.json")).read_text(encoding="utf-8"))
    assert set(info["classes"]) == set(NAMES)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("classes.xlsx", "ends neither in `.csv` nor in `.html`"),
        ("nowhere/classes.csv", "there is no folder `nowhere`"),
        ("folder.csv", "is a folder"),
    ],
)
def test_files_that_cannot_be_written_are_told_at_once(inside, capsys, file, message):
    (inside / "folder.csv").mkdir(exist_ok=True)
    assert run(["eval", "--classes", file]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error


@pytest.mark.parametrize("name", NAMES + NOT_AS_FOLDERS)
def test_every_way_to_show_a_name(name):
    line = one_line(name)
    assert line.isprintable()
    assert len(one_line(name, 60)) <= 60
    cell = csv_cell(name)
    assert cell.isprintable()
    assert cell.lstrip()[:1] not in tuple("=+-@＝＋－＠")
    assert cell.removeprefix("'") == line.removeprefix("'")
    text = html_text(name)
    assert text.isprintable()
    assert not set(text) & set("<>\"'")
    page = Page()
    page.feed(f"<td>{text}</td>")
    assert page.cells == [line]
    encoded = json_text({name: [name]})
    assert steers_nothing(encoded)
    assert json.loads(encoded) == {name: [name]}
