"""Whatever is not HTML already is escaped."""

from __future__ import annotations

import html
import json
import re

import pytest

from distillctl.pages.markup import Markup, data_block, details, element, join, preformatted, section, table, text
from distillctl.pages.page import image, page

EVIL = "</script><script>alert(1)</script>\"'&<!--\u2028"


@pytest.mark.parametrize("made", [text(EVIL), element("p", EVIL), element("a", "", title=EVIL), join([EVIL, EVIL]), preformatted(EVIL)])
def test_text_is_escaped(made: Markup) -> None:
    assert "<script" not in made
    assert "</script" not in made
    assert '"<' not in made


def test_text_stays_what_it_is_and_html_too() -> None:
    assert html.unescape(element("p", "a < b & c")) == "<p>a < b & c</p>"
    assert element("p", element("b", "x")) == "<p><b>x</b></p>"
    assert preformatted("a\nb") == "<pre>a\nb</pre>"


def test_parts_of_a_page() -> None:
    assert section("A", "") == ""
    assert section("A", element("p", "x")) == "<section><h2>A</h2><p>x</p></section>"
    assert details("more", EVIL).startswith("<details><summary>more</summary>")
    made = table(("", "<b>"), [("row", element("td", "1", class_="x"), 2)])
    assert '<th scope="row">row</th><td class="x">1</td><td>2</td>' in made
    assert "<b>" not in made


def test_data_cannot_end_their_block() -> None:
    block = data_block({"name": EVIL, "y": [1.5, None]})
    inner = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert not re.search("[<>&\u2028]", inner)
    assert json.loads(inner) == {"name": EVIL, "y": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_block({"y": float("nan")})


def test_a_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    made = page(EVIL, element("p", "x"))
    assert "default-src 'none'; img-src data:" in made
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='", made)
    assert made.count("<script>") == 1
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", made)


def test_only_pictures_are_pictures() -> None:
    assert image(b"\x89PNG\r\n\x1a\nx", EVIL).startswith('<img src="data:image/png;base64,')
    assert image(b"\xff\xd8\xffx", "a").startswith('<img src="data:image/jpeg;base64,')
    assert image(b"<svg onload=alert(1)>", "a") == ""
