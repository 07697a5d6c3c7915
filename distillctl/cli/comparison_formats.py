"""A comparison of runs for a terminal, and as Markdown, CSV, LaTeX, a page and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from distillctl.analysis.comparison import Comparison
from distillctl.analysis.groups import Group
from distillctl.cli import render
from distillctl.cli.class_table import csv_text
from distillctl.cli.comparison_table import (
    Cell,
    Table,
    compute_legend,
    compute_table,
    differences_of,
    legend,
    notes,
    sameness,
    table_of,
    title,
)
from distillctl.text import html_text, json_text, one_line

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # behind `\\` it would begin an argument
    "±": r"$\pm$",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
}


def print_table(comparison: Comparison) -> None:
    """For a terminal: a table where it fits, and else a block for each group."""
    render.heading(title(comparison))
    render.line()
    _print(table_of(comparison), less=("Wilcoxon",))
    render.line()
    for text in legend(comparison, "*"):
        render.words(text, 2)
    for text in comparison.notes:
        render.words(f"note: {text}", 6)
    render.line()
    (render.heading if comparison.differing else render.words)(sameness(comparison))
    for key, values in differences_of(comparison):
        render.words(f"  {key}  {'; '.join(values)}", 6)
    compute = compute_table(comparison)
    if compute.rows:
        render.line()
        render.heading("compute of a run, as a mean")
        _print(compute)
        render.words(compute_legend(comparison), 2)


def as_markdown(comparison: Comparison) -> str:
    """A table of GitHub's Markdown, with its notes as a list."""
    parts = [f"**{_md(title(comparison))}**", _md_table(table_of(comparison)), _md_list(notes(comparison, "bold"))]
    compute = compute_table(comparison)
    if compute.rows:
        parts += [_md_table(compute), _md_list([compute_legend(comparison)])]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_latex(comparison: Comparison) -> str:
    """A `tabular` with booktabs' rules, with its notes as comments."""
    table = table_of(comparison)
    sides = "".join("r" if cell.number else "l" for cell in table.rows[0]) if table.rows else ""
    lines = [f"% {one_line(title(comparison))}", f"\\begin{{tabular}}{{{sides}}}", "\\toprule"]
    lines += [" & ".join(map(_latex, table.heads)) + r" \\", "\\midrule"]
    lines += [" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows]
    lines += ["\\bottomrule", "\\end{tabular}", *(f"% {one_line(text)}" for text in notes(comparison, "bold"))]
    return "\n".join(lines) + "\n"


def as_html(comparison: Comparison) -> str:
    """A page that needs nothing else."""
    compute = compute_table(comparison)
    more = f"{_html_table(compute)}<p>{html_text(compute_legend(comparison))}</p>" if compute.rows else ""
    items = "".join(f"<li>{_html_words(text)}</li>" for text in notes(comparison, "bold"))
    return _PAGE.format(title=html_text(title(comparison)), table=_html_table(table_of(comparison)), notes=items, more=more)


def as_csv(comparison: Comparison) -> str:
    """A row for each group, with all digits."""
    rows = [_flat(group) for group in comparison.groups]
    heads = [*comparison.by, *list(rows[0])]
    return csv_text(
        heads, [[*(group.values[key] for key in comparison.by), *row.values()] for group, row in zip(comparison.groups, rows, strict=True)]
    )


def as_json(comparison: Comparison) -> str:
    """Everything."""
    return json_text(as_data(comparison)) + "\n"


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain data."""
    plain = ("metric", "words", "percent", "lower", "split", "at", "chosen_on", "budget")
    return {
        "title": title(comparison),
        **{name: getattr(comparison, name) for name in plain},
        "by": list(comparison.by),
        "groups": [_group(group) for group in comparison.groups],
        "differing": [
            {"key": one.key, "kind": one.kind, "values": {value: [str(run.path) for run in runs] for value, runs in one.values.items()}}
            for one in comparison.differing
        ],
        "legend": legend(comparison, "outside_noise"),
        "notes": list(comparison.notes),
    }


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "html": as_html,
    "json": as_json,
}
"""What is not for a terminal."""


def _print(table: Table, less: Sequence[str] = ()) -> None:
    """As a table without what is in `less`, if that fits, and else in blocks."""
    columns = [[cell.text for cell in column] for column in zip(*table.rows, strict=True)]
    for texts, cells in zip(columns, zip(*table.rows, strict=True), strict=True):
        if any(cell.strong for cell in cells):  # digits stay below each other
            texts[:] = [f"{text} {'*' if cell.strong else ' '}" if text else "" for text, cell in zip(texts, cells, strict=True)]
    widths = [max(map(len, (head, *texts))) for head, texts in zip(table.heads, columns, strict=True)]
    needed = sum(width + 2 for head, width in zip(table.heads, widths, strict=True) if head not in less) - 2
    if 0 < render.width() < needed:
        _print_blocks(table, columns)
        return
    numbers = [cell.number for cell in table.rows[0]]
    placed = [
        [text and text.rjust(w) if n else text for text, w, n in zip(row, widths, numbers, strict=True)]
        for row in zip(*columns, strict=True)
    ]
    names = {head: head.rjust(width) if n else head for head, width, n in zip(table.heads, widths, numbers, strict=True)}
    render.table(list(names.values()), placed, less=[names[head] for head in less if head in names])


def _print_blocks(table: Table, columns: Sequence[Sequence[str]]) -> None:
    keys = [cell.number for cell in table.rows[0]].index(True)  # what names a group stands in front
    margin = max(map(len, table.heads[keys:])) + 4
    for number, row in enumerate(zip(*columns, strict=True)):
        if number:
            render.line()
        told = list(zip(table.heads, row, strict=True))
        render.heading(", ".join(f"{head} {text}" for head, text in told[:keys]))
        for head, text in told[keys:]:
            if text:
                render.words(f"  {head:<{margin - 2}}{text.strip()}", margin)


def _md_table(table: Table) -> str:
    lines = [" | ".join(map(_md, table.heads)), " | ".join("--:" if cell.number else ":--" for cell in table.rows[0])]
    lines += [" | ".join(f"**{_md(cell.text)}**" if cell.strong else _md(cell.text) for cell in row) for row in table.rows]
    return "\n".join(f"| {line} |" for line in lines)


def _md_list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {_md(text)}" for text in texts)


def _md(text: str) -> str:
    """Plain text in Markdown; what stands in backticks stays code."""
    parts = re.split("(`[^`|]*`)", one_line(text))
    return "".join(
        part if number % 2 else re.sub(r"([\\|*_\[\]#`])", r"\\\1", part).replace("<", "&lt;") for number, part in enumerate(parts)
    )


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def _latex_cell(cell: Cell) -> str:
    return f"\\textbf{{{_latex(cell.text)}}}" if cell.strong else _latex(cell.text)


def _html_words(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", html_text(text))


def _html_table(table: Table) -> str:
    def cell(one: Cell) -> str:
        text = html_text(one.text)
        return f"<td{' class=number' if one.number else ''}>{f'<b>{text}</b>' if one.strong else text}</td>"

    heads = "".join(
        f"<th{' class=number' if one.number else ''}>{html_text(head)}</th>" for head, one in zip(table.heads, table.rows[0], strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _flat(group: Group) -> dict[str, str | float | None]:
    one = group.against
    t, ranks, answers = (None, None, None) if one is None else (one.t, one.wilcoxon, one.mcnemar)
    return {
        "group": group.name,
        "n": len(group.seeds),
        "seeds": " ".join(map(str, group.seeds)),
        "mean": group.mean,
        "sd": group.sd,
        "control": None if one is None else one.control,
        "pairs": None if one is None else len(one.pairs),
        "difference": None if one is None else one.mean,
        **{name: getattr(t, name, None) for name in ("low", "high", "statistic", "p")},
        "wilcoxon_w": getattr(ranks, "statistic", None),
        "wilcoxon_p": getattr(ranks, "p", None),
        "mcnemar_p": getattr(answers, "p", None),
        "p_holm": None if one is None else one.adjusted,
        "outside_noise": None if one is None else one.verdict,
        **asdict(group.compute),
    }


def _group(group: Group) -> dict[str, Any]:
    one = group.against
    against: dict[str, Any] | None = None
    if one is not None:
        against = {"control": one.control, "mean": one.mean, "verdict": one.verdict, "adjusted": one.adjusted}
        against["pairs"] = [{**asdict(pair), "difference": pair.difference} for pair in one.pairs]
        against |= {
            name: None if part is None else asdict(part)
            for name, part in (("t", one.t), ("wilcoxon", one.wilcoxon), ("mcnemar", one.mcnemar))
        }
    return {
        "name": group.name,
        "values": dict(group.values),
        "n": len(group.seeds),
        "seeds": {str(seed): value for seed, value in group.seeds.items()},
        "mean": group.mean,
        "sd": group.sd,
        "against": against,
        "compute": asdict(group.compute),
        "runs": [str(run.path) for run in group.runs],
        "copies": [str(run.path) for run in group.copies],
    }


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
h1 {{ font-size: 1.2rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
{table}
<ul>{notes}</ul>
{more}
</body>
</html>
"""
