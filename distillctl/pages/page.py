"""The frame of a page: one file that loads nothing, with its style and its script in it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from distillctl.pages.markup import Markup, element, join, text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{hash}'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def page(title: str, *parts: object) -> str:
    """A page. Only its own script runs, by its hash: whatever a name brings along does not."""
    script = _source("charts.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    body = join([element("h1", title), *parts], "\n")
    return _PAGE.format(title=text(title), style=_source("page.css"), body=element("main", body), script=script, hash=f"sha256-{digest}")


def image(data: bytes, shown_as: str) -> Markup:
    """A picture, PNG or JPEG, within the page; empty if it is neither."""
    kinds = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), "")
    if not kind:
        return Markup()
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Markup(f'<img src="{source}" alt="{text(shown_as)}">')


@cache
def _source(name: str) -> str:
    return files("distillctl.pages").joinpath(name).read_text(encoding="utf-8")
