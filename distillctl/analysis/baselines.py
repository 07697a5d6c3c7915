"""With which group each group of runs is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.groups import OF_OTHERS, Group, Grouped
from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import value_of
from distillctl.errors import ProfileError
from distillctl.profile.problems import nearest
from distillctl.text import some


@dataclass(frozen=True)
class Controls:
    """of: for each group the place of its control; None where there is none."""

    of: Sequence[int | None]
    notes: list[str]


def controls_of(grouped: Grouped, named: str, *, strict: bool) -> Controls:
    """With what each group is compared.

    named: a group, or one of its runs, that is the control of all others; without it the runs from labels alone that else are the same.
    strict: the same in all settings but those of method and teacher, and not only in those that tell groups apart.

    Raises:
        ProfileError: what is named is not there.
    """
    groups = grouped.groups
    if named:
        chosen = _named(named, groups)
        return Controls([None if index == chosen else chosen for index in range(len(groups))], [])
    candidates = [index for index, group in enumerate(groups) if {run.method for run in group.runs} == {LABELS_ALONE}]
    compared = [one.key for one in grouped.found if one.kind == "setting"] if strict else list(grouped.keys)
    compared = [key for key in compared if key.partition(".")[0] not in OF_OTHERS]
    common = [[value_of(key, grouped.facts[group.runs[0].path]) if strict else group.values[key] for key in compared] for group in groups]
    of: list[int | None] = []
    without: list[int] = []
    for index in range(len(groups)):
        same = [one for one in candidates if one != index and common[one] == common[index]]
        of.append(same[0] if same and index not in candidates else None)
        if index not in candidates and not same:
            without.append(index)
    if not without or len(groups) < 2:
        return Controls(of, [])
    names = some([groups[index].name for index in without])
    if not candidates:
        return Controls(of, [f"no control for {names}: no run has the method `none`; `--control NAME` chooses a baseline"])
    other = sorted(
        {key for index in without for key, mine, theirs in _nearest_control(index, candidates, common, compared) if mine != theirs}
    )
    return Controls(
        of,
        [
            f"no control for {names}: the runs from labels alone differ from it in {some(other)}; "
            f"`--control {_quoted(groups[candidates[0]].name)}` compares with one all the same"
        ],
    )


def _nearest_control(
    index: int, candidates: Sequence[int], common: Sequence[Sequence[str]], compared: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Key, value and the control's value, of the control that differs in the fewest settings."""
    ways = [list(zip(compared, common[index], common[one], strict=True)) for one in candidates]
    return min(ways, key=lambda way: sum(mine != theirs for _, mine, theirs in way))


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name


def _named(control: str, groups: Sequence[Group]) -> int:
    """The group of this name, with this method or other value alone, or with this run."""
    ways = (
        [index for index, group in enumerate(groups) if group.name == control],
        [index for index, group in enumerate(groups) if control in group.values.values()],
        [
            index
            for index, group in enumerate(groups)
            if any(control in (str(run.path), run.path.name) for run in (*group.runs, *group.copies))
        ],
        [index for index, group in enumerate(groups) if any(_same_place(control, run) for run in (*group.runs, *group.copies))],
    )
    found = next((way for way in ways if way), [])
    names = [group.name for group in groups]
    if len(found) == 1:
        return found[0]
    if found:
        raise ProfileError(f"`{control}` may mean {some([names[index] for index in found])}", where="--control")
    raise ProfileError(
        f"no group and no compared run is called `{control}`",
        where="--control",
        hint=nearest(control, names) or f"groups are {some(names)}",
    )


def _same_place(control: str, run: RunRecord) -> bool:
    try:
        return run.path.resolve() == Path(control).resolve()
    except (OSError, ValueError):
        return False
