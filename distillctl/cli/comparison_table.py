"""A comparison of runs in words: the cells of its table, what they mean, and what else differs. How it is printed is not asked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distillctl.analysis.comparison import ALPHA, Comparison
from distillctl.analysis.groups import Difference, Group, short
from distillctl.analysis.settings import METHOD, Differing
from distillctl.text import counted, duration, magnitude, one_line

_LONGEST = 60
"""Characters of a setting's value."""


@dataclass(frozen=True)
class Cell:
    """strong: it is outside noise. number: it stands on the right."""

    text: str
    strong: bool = False
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table with its heads; columns without any text are left out."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Cell]]) -> Table:
        """From columns by their heads."""
        used = {head: cells for head, cells in columns.items() if any(cell.text for cell in cells)}
        return cls(list(used), list(zip(*used.values(), strict=True)))


def title(comparison: Comparison) -> str:
    """What the figures are."""
    figure = f"{comparison.words} in %" if comparison.percent else comparison.words
    if comparison.budget is not None:
        return f"{figure} on val, at equal compute: of the best epoch within {magnitude(comparison.budget)} MACs a run"
    epoch = "of the last epoch" if comparison.at == "last" else f"of the epoch chosen on {comparison.chosen_on}"
    if comparison.chosen_on == "last epoch":
        epoch = "of the last epoch, since no validation split chose one"
    return f"{figure} on {comparison.split}, {epoch}"


def table_of(comparison: Comparison) -> Table:
    """A row for each group."""
    groups = comparison.groups
    several = len({one.control for group in groups if (one := group.against) is not None}) > 1
    heads = _heads(comparison.by)
    columns = {head: [Cell(one_line(group.values[key], _LONGEST) or "–", number=False) for group in groups] for key, head in heads.items()}
    columns["n"] = [Cell(str(len(group.seeds))) for group in groups]
    columns[f"{comparison.words} %" if comparison.percent else comparison.words] = [Cell(_mean(comparison, group)) for group in groups]
    columns["difference"] = _cells(groups, lambda one: _signed(comparison, one.mean), strong=True)
    if several:
        columns["to"] = [Cell("" if group.against is None else group.against.control, number=False) for group in groups]
    columns["95 % interval"] = _cells(groups, lambda one: _interval(comparison, one))
    columns["p"] = _cells(groups, lambda one: "" if one.t is None or one.adjusted is None else p_text(one.adjusted))
    columns["Wilcoxon"] = _cells(groups, lambda one: "" if one.wilcoxon is None else p_text(one.wilcoxon.p))
    columns["McNemar"] = _cells(groups, lambda one: "" if one.mcnemar is None or one.adjusted is None else p_text(one.adjusted))
    return Table.of(columns)


def legend(comparison: Comparison, mark: str) -> list[str]:
    """What the columns mean, and what a difference is worth. mark: how what is outside noise is marked."""
    told = []
    differences = [group.against for group in comparison.groups if group.against is not None]
    if any(group.sd is not None for group in comparison.groups):
        told.append("±: sample standard deviation over seeds")
    if differences:
        controls = list(dict.fromkeys(one.control for one in differences))
        to = f"to `{controls[0]}`" if len(controls) == 1 else "to the group in the column `to`"
        points = "points, " if comparison.percent else ""
        told.append(f"difference: {points}{to}, paired over the seeds of both{'; lower is better' if comparison.lower else ''}")
    tested = [one for one in differences if one.t is not None]
    if tested:
        adjusted = f", adjusted for {counted(len(tested), 'comparison')} by Holm's method" if len(tested) > 1 else ""
        told.append(
            f"95 % interval: of one difference by Student's paired t; p: of the paired t-test{adjusted}; "
            f"{mark}: outside noise, p below {ALPHA:g}"
        )
    if equal := [one for one in differences if len(one.pairs) > 1 and one.t is None]:
        told.append(f"equal differences of all seeds have no spread, and no p: {counted(len(equal), 'comparison')}")
    if least := [one.wilcoxon.smallest for one in differences if one.wilcoxon is not None and one.wilcoxon.smallest >= ALPHA]:
        told.append(
            f"Wilcoxon: p of the exact signed-rank test; with as few seeds it is at least {p_text(min(least))}, never below {ALPHA:g}"
        )
    elif any(one.wilcoxon is not None for one in differences):
        told.append("Wilcoxon: p of the exact signed-rank test, not adjusted")
    mcnemar = [one for one in differences if one.mcnemar is not None]
    if mcnemar:
        adjusted = f", adjusted for {counted(len(mcnemar), 'comparison')} by Holm's method" if len(mcnemar) > 1 else ""
        told.append(f"McNemar: p of the exact test on the answers of two networks{adjusted}; it says nothing of other seeds")
    if any(len(one.pairs) == 1 for one in differences):
        told.append("a difference of one seed has no interval: nothing tells it from noise between seeds")
    if comparison.budget is not None or (comparison.split == "val" and comparison.at == "best"):
        told.append("figures of val are those by which the epoch was chosen, and therefore too good")
    return told


def differences_of(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Each other setting that differs, with `value: groups` for each of its values."""
    found = []
    for one in comparison.differing:
        groups = {value: _who(comparison, one, value) for value in one.values}
        most = max(groups, key=lambda value: len(groups[value]))
        others = most if len(groups[most]) > 3 and not any(name.endswith(")") for name in groups[most]) else None
        told = {value: "all others" if value == others else ", ".join(names) for value, names in groups.items()}
        found.append((_called(one), [f"{one_line(value, _LONGEST)}: {names}" for value, names in told.items()]))
    return found


def sameness(comparison: Comparison) -> str:
    """The sentence above or in place of the settings that differ."""
    by = ", ".join(comparison.by)
    own = ", but for options that belong to a method" if METHOD in comparison.by else ""
    if comparison.differing:
        return f"beside {by}, the runs differ in"
    return f"beside {by}, nothing differs in settings, packages, device, processes and data{own}"


def compute_table(comparison: Comparison) -> Table:
    """What a run of each group has computed."""
    groups = comparison.groups

    def column(name: str, form: Callable[[float], str]) -> list[Cell]:
        values = [getattr(group.compute, name) for group in groups]
        return [Cell("" if value is None else form(value)) for value in values]

    columns = {"group": [Cell(group.name, number=False) for group in groups]}
    columns |= {"images": column("images", magnitude), "student": column("student", magnitude), "teacher": column("teacher", magnitude)}
    columns |= {"MACs": column("macs", magnitude), "time": column("seconds", duration)}
    found = Table.of(columns)
    return found if len(found.heads) > 1 else Table([], [])


def compute_legend(comparison: Comparison) -> str:
    """What its columns mean."""
    if all(group.compute.macs is None for group in comparison.groups):
        return "time: of training and evaluations"
    return (
        "images: of training; student, teacher: images that went forward through it, evaluations included; MACs: of all that, a backward "
        "pass counted as two forwards; what training the teacher took is no part of it"
    )


def p_text(p: float) -> str:
    """`0.021`, `<0.001`."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.9995 else "1"


def _heads(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, where that tells it from the others."""
    return {key: short(key) if [short(other) for other in keys].count(short(key)) == 1 else key for key in keys}


def _cells(groups: Sequence[Group], form: Callable[[Difference], str], *, strong: bool = False) -> list[Cell]:
    return [Cell("") if (one := group.against) is None else Cell(form(one), strong=strong and bool(one.verdict)) for group in groups]


def _number(comparison: Comparison, value: float, sign: str = "") -> str:
    return f"{value * 100:{sign}.2f}" if comparison.percent else f"{value:{sign}.4f}"


def _signed(comparison: Comparison, value: float) -> str:
    text = _number(comparison, value, "+")
    return text if text.strip("+-0.") else text.lstrip("+-")


def _mean(comparison: Comparison, group: Group) -> str:
    spread = "" if group.sd is None else f" ± {_number(comparison, group.sd)}"
    return _number(comparison, group.mean) + spread


def _interval(comparison: Comparison, one: Difference) -> str:
    return "" if one.t is None else f"[{_signed(comparison, one.t.low)}, {_signed(comparison, one.t.high)}]"


def _called(one: Differing) -> str:
    return f"{one.key} (seed {next(iter(one.values.values()))[0].seed})" if one.kind == "data" else one.key


def _who(comparison: Comparison, one: Differing, value: str) -> list[str]:
    """The groups that have a value; of those whose runs differ in it, how many."""
    having = {run.path for run in one.values[value]}
    every = {run.path for runs in one.values.values() for run in runs}
    names = []
    for group in comparison.groups:
        count, of = (sum(run.path in paths for run in group.runs) for paths in (having, every))
        if count:
            names.append(f"`{group.name}`" if count == of else f"`{group.name}` ({count} of {of})")
    return names


def notes(comparison: Comparison, mark: str) -> list[str]:
    """The legend, the notes and what else differs, for what stands below a table."""
    differing = [f"{key}: {'; '.join(values)}" for key, values in differences_of(comparison)]
    return [*legend(comparison, mark), *comparison.notes, " — ".join([sameness(comparison), *differing])]
