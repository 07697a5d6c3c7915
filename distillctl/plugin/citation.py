"""The paper of a plugin object as a BibTeX entry."""

from __future__ import annotations

import re
import unicodedata

from distillctl.api.specs import Spec

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_SMALL = frozenset(["a", "an", "and", "do", "for", "from", "in", "of", "on", "the", "to", "via", "with"])
"""Words that do not stand in a key."""


def bibtex(spec: Spec) -> str:
    """The entry of the paper, its key of surname, year and first word of the title; empty where the spec does not say enough for one.

    Year and arXiv id are those in `paper`. Capitals of the title are kept.
    """
    year = _YEAR.search(spec.paper)
    if not (spec.title and spec.authors and year):
        return ""
    surname = spec.authors.partition(" and ")[0].partition(",")[0]
    word = next((word for word in _letters(_bare(spec.title)).split() if len(word) > 1 and word not in _SMALL), "")
    found = _ARXIV.search(spec.paper)
    arxiv = found[1] if found else ""
    fields = {
        "title": f"{{{_escaped(spec.title)}}}",
        "author": _escaped(spec.authors),
        "booktitle": _escaped(spec.venue),
        "year": year[0],
        "eprint": arxiv,
        "archiveprefix": "arXiv" if arxiv else "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    kind = "inproceedings" if spec.venue else "misc"
    return "\n".join([f"@{kind}{{{_letters(surname).replace(' ', '')}{year[0]}{word},", *lines, "}"])


def _letters(text: str) -> str:
    """Small letters without accents, and blanks for everything else."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]+", " ", plain.lower()).strip()


def _escaped(text: str) -> str:
    """Signs that mean something to LaTeX, as themselves; braces would end a field, and are left out."""
    return re.sub(r"([&%$#_])", r"\\\1", _bare(text))


def _bare(text: str) -> str:
    return re.sub(r"[{}\\]", "", text)
