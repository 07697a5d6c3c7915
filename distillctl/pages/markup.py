"""HTML from values: whatever is not marked as HTML already is text, and is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from distillctl.text import html_text


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML."""
    return value if isinstance(value, Markup) else Markup(html_text(value))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Values one after the other."""
    return Markup(between.join(text(part) for part in parts))


def element(name: str, content: object = "", **attributes: object) -> Markup:
    """An element. Attributes: `class_` for `class`, `_` for `-`; those that are None are left out."""
    stated = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    written = "".join(f' {key}="{html_text(value)}"' for key, value in stated)
    return Markup(f"<{name}{written}>{text(content)}</{name}>")


def paragraph(content: object, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", content, class_=class_)


def preformatted(content: str) -> Markup:
    """Text whose lines are kept."""
    return element("pre", Markup("\n".join(html_text(line) for line in content.splitlines())))


def section(title: str, *parts: object) -> Markup:
    """A part of a page; empty if nothing stands in it."""
    kept = [part for part in parts if part != ""]
    return element("section", join([element("h2", title), *kept])) if kept else Markup()


def details(summary: str, content: object) -> Markup:
    """What is shown when somebody opens it."""
    return element("details", join([element("summary", summary), text(content)]))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None) -> Markup:
    """A table whose first column names its rows, in a box of its own that scrolls where it is wide."""
    top = element("thead", element("tr", join(element("th", cell, scope="col") for cell in head)))
    body = join(
        element("tr", join([element("th", row[0], scope="row"), *(cell if is_cell(cell) else element("td", cell) for cell in row[1:])]))
        for row in rows
    )
    return element("div", element("table", join([top, element("tbody", body)]), class_=class_), class_="wide")


def is_cell(value: object) -> bool:
    """Whether something is a cell of a table by itself."""
    return isinstance(value, Markup) and value.startswith("<td")


def data_block(data: Mapping[str, object]) -> Markup:
    """Data for the page's script. No text in it can end the block, since `<` is written as an escape."""
    written = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        written = written.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(f'<script type="application/json">{written}</script>')
