"""Pages in a real browser, headless: nothing on the console, charts that have points, names that stay text, values under the pointer."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.analysis.records import RunRecord
from distillctl.pages.run_page import run_page
from distillctl.pages.runs_page import runs_page

Make = Callable[..., Path]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"),
)
EVIL = "<script>document.title='broken'</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(BROWSER is None, reason=f"there is no browser: {', '.join(BROWSERS)}"),
]


def opened(page: Path, profile: Path, width: int = 1400) -> tuple[str, list[str]]:
    """What a browser makes of a page, and what it wrote to its console."""
    assert BROWSER is not None
    command = [BROWSER, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},1000", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def points(dom: str) -> list[int]:
    return [int(found) for found in re.findall(r'data-points="(\d+)"', dom)]


@pytest.fixture(scope="module")
def evil(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run whose names are HTML."""
    folder = tmp_path_factory.mktemp("evil")
    run = make_run(folder / "a<b>", classes=(EVIL, "</pre><img src=x onerror=alert(1)>", "owl"), terms=("task", EVIL))
    return run_page(RunRecord.read(run), RunRecord.read(make_run(folder / "none", method="none")))


def test_a_run(evil: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(evil, encoding="utf-8")
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    found = points(dom)
    assert len(found) == evil.count('class="chart"') == 7
    assert found == [9, 9, 6, 3, 3, 3, 12], "every point of every curve"
    assert dom.count("<svg") == 7
    assert len(re.findall("<path", dom)) == 14, "one for each line"
    body = dom.split("<body>")[1]
    assert html.escape(EVIL, quote=False) in body
    assert "<script>document" not in body
    assert "onerror=alert(1)&gt;" in body
    assert "<title>broken" not in dom


def test_several_runs_in_a_narrow_window(make_run: Make, tmp_path: Path) -> None:
    made = [
        make_run(tmp_path / f"{t}-{u}-{s}", seed=s, answers=False, temperature=t, other=u)
        for t in (1.0, 4.0)
        for u in (1.0, 4.0)
        for s in (0, 1)
    ]
    page = tmp_path / "report.html"
    page.write_text(runs_page(EVIL, [RunRecord.read(path) for path in made]), encoding="utf-8")
    dom, console = opened(page, tmp_path / "profile", 375)
    assert console == []
    assert points(dom) == [12] * 5
    assert dom.count("<polygon") == 20, "the spread of each curve"
    assert dom.count("background") >= 1
    assert 'class="heat"' in dom


def test_the_pointer_tells_values_a_drag_zooms_and_the_legend_hides(evil: str, tmp_path: Path) -> None:
    acts = """<script>
    const chart = document.querySelector("figure.chart"), svg = () => chart.querySelector("svg"), told = [];
    const tip = () => [...chart.querySelectorAll(".tip div")].map((line) => line.textContent).join("|");
    const at = (kind, share) => {
      const box = svg().getBoundingClientRect();
      const place = { clientX: box.left + box.width * share, clientY: box.top + 50, pointerId: 1, bubbles: true };
      svg().setPointerCapture = () => {};
      svg().dispatchEvent(new PointerEvent(kind, place));
    };
    at("pointermove", 0.99); told.push(tip());
    at("pointerdown", 0.5); at("pointermove", 0.99); at("pointerup", 0.99); told.push(chart.dataset.points);
    svg().dispatchEvent(new MouseEvent("dblclick")); told.push(chart.dataset.points);
    chart.querySelector(".legend button").click(); told.push(chart.dataset.points);
    svg().dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })); told.push(tip());
    document.body.append(Object.assign(document.createElement("output"), { textContent: told.join("#") }));
    </script>"""
    page = tmp_path / "report.html"
    free = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", evil)  # which would refuse the test's own script
    page.write_text(free.replace("</body>", f"{acts}</body>"), encoding="utf-8")
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    found = re.search("<output>(.*?)</output>", dom)
    assert found
    over, zoomed, whole, hidden, first = html.unescape(found[1]).split("#")
    assert sorted(over.split("|")) == sorted(["epoch 3", "total 0.6667", "task 0.3333", f"{EVIL} 0.3333"])
    assert (zoomed, whole, hidden) == ("6", "9", "6"), "two of three epochs; all; two of three lines"
    assert sorted(first.split("|")) == sorted(["epoch 1", "task 1", f"{EVIL} 1"])


def test_what_a_name_brings_along_does_not_run(evil: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(evil.replace("</body>", f"{EVIL}</body>"), encoding="utf-8")
    dom, console = opened(page, tmp_path / "profile")
    assert "<title>broken" not in dom, "only the page's own script runs, by its hash"
    assert "Content Security Policy" in "".join(console), "and this test would see it on the console"
