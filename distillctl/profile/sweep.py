"""Many runs of one profile: the values that keys have in turn, as `--grid` and the table [sweep] name them, and which runs they make."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillctl.errors import Problem, ProfileError
from distillctl.profile.document import parse_value, split_key
from distillctl.profile.schema import MAX_RUNS, MAX_SEED, SweepTable

_RANGE = re.compile(r"\s*(\S+?)\s*\.\.\s*(\S+?)(\s+log)?\s*")
_DIGITS = 4
_DRAWS = 1000
"""So often another combination is drawn for one that was there before."""


@dataclass(frozen=True)
class Range:
    """Numbers between two others, both included. log: their logarithm is drawn."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether they are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, part: float) -> float:
        """The number at a part in [0, 1) of the range; one that is not whole has four digits."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** part if self.log else low + (high - low) * part
        return min(math.floor(value), int(self.high)) if self.whole else rounded(value)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{' log' if self.log else ''}"


def rounded(value: float) -> float:
    """The number with four digits: what is drawn has no more than somebody would write."""
    return float(f"{value:.{_DIGITS}g}")


Axis = tuple[Any, ...] | Range
"""The values of one key."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep is to do: the table with what the command line says instead.

    grid: by dotted key. seeds: empty means the profile's own. random, trials: 0 means none; optimize: empty means none.
    """

    grid: Mapping[str, Axis]
    seeds: tuple[int, ...] = ()
    control: bool = False
    jobs: int = 1
    random: int = 0
    optimize: str = ""
    trials: int = 0


def settle(
    table: SweepTable,
    *,
    grid: Sequence[str] = (),
    seeds: str | None = None,
    control: bool | None = None,
    jobs: int | None = None,
    random: int | None = None,
    optimize: str | None = None,
    trials: int | None = None,
) -> Sweep:
    """The sweep of a profile's table, in which every option of the command line takes the place of its key.

    Raises:
        ProfileError: with everything that is wrong with it.
    """
    problems: list[Problem] = []
    axes: dict[str, Axis] = {}
    where = "--grid" if grid else "[sweep.grid]"
    for key, values in [_split(text) for text in grid] if grid else _flat(table.grid):
        try:
            if key in axes:
                raise ProfileError(f"`{key}` is given twice", where=where)
            axes[key] = _axis(key, values, where)
        except ProfileError as error:
            problems += error.problems
    wished = read_seeds(seeds) if seeds is not None else tuple(table.seeds or ())
    if random is not None:
        optimize, trials = None, trials
    elif optimize is None:
        random, optimize = table.random, table.optimize
    trials = table.trials if trials is None and optimize is not None else trials
    made = Sweep(
        axes,
        wished,
        table.control if control is None else control,
        table.jobs if jobs is None else jobs,
        random or 0,
        optimize or "",
        trials or 0,
    )
    problems += _contradictions(made)
    if problems:
        raise ProfileError(problems)
    return made


def _contradictions(sweep: Sweep) -> Iterator[Problem]:
    drawn = sweep.random or sweep.optimize
    if sweep.random and sweep.optimize:
        yield Problem("`random` draws combinations and `optimize` searches for them: a sweep does one of both", "--random, --optimize")
    if sweep.optimize and not sweep.trials:
        yield Problem("`optimize` needs to know how many combinations it may try", "--optimize", "for example `--trials 30`")
    if sweep.trials and not sweep.optimize:
        yield Problem("`trials` has no effect without `optimize`", "--trials")
    if drawn and not sweep.grid:
        yield Problem("there is nothing to draw from", "--grid", "for example `--grid 'method.temperature=1..16'`")
    for key, axis in sweep.grid.items():
        if isinstance(axis, Range) and not drawn:
            hint = "list values, or draw from it by `--random N` or `--optimize METRIC --trials N`"
            yield Problem(f"`{key}={axis}` is a range, and a grid takes values", "--grid", hint)
    if not drawn and MAX_RUNS < (count := _size(sweep.grid)) < math.inf:
        yield Problem(f"the grid has {count:,} combinations, more than {MAX_RUNS:,}", "--grid", "`--random N` draws some")


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of `--seeds 0,1,2`.

    Raises:
        ProfileError: it is something else.
    """
    numbers = [part.strip() for part in text.split(",")]
    if not all(n.isdecimal() and n.isascii() and int(n) <= MAX_SEED for n in numbers) or len({int(n) for n in numbers}) < len(numbers):
        raise ProfileError(f"`--seeds {text}` is not a list of different whole numbers", where="--seeds", hint="such as `--seeds 0,1,2`")
    return tuple(int(number) for number in numbers)


def combinations(sweep: Sweep, seed: int) -> list[dict[str, Any]]:
    """The values of every combination, by key: all of the grid, or those that were drawn. One without values where there is no grid.

    With a larger number, those that were drawn before come first.
    """
    if not sweep.random or sweep.random >= _size(sweep.grid):
        return [dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())]  # type: ignore[arg-type]
    draw = random.Random(seed)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(sweep.random * _DRAWS):
        values = {key: pick(axis, draw.random()) for key, axis in sweep.grid.items()}
        found.setdefault(repr(values), values)
        if len(found) == sweep.random:
            break
    return list(found.values())


def samples(grid: Mapping[str, Axis]) -> Iterator[dict[str, Any]]:
    """Combinations in which every value and every end of a range is there once: what is checked before a search begins."""
    first = {key: _ends(axis)[0] for key, axis in grid.items()}
    for key, axis in grid.items():
        for value in _ends(axis):
            yield {**first, key: value}


def pick(axis: Axis, part: float) -> Any:
    """The value at a part in [0, 1)."""
    return axis.at(part) if isinstance(axis, Range) else axis[int(part * len(axis))]


def _ends(axis: Axis) -> Sequence[Any]:
    return (axis.low, axis.high) if isinstance(axis, Range) else axis


def _size(grid: Mapping[str, Axis]) -> float:
    return math.prod(math.inf if isinstance(axis, Range) else len(axis) for axis in grid.values())


def _flat(grid: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A table of TOML by dotted keys: `method.temperature = …` is a table in a table."""
    for key, value in grid.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _split(text: str) -> tuple[str, Any]:
    """`KEY=VALUE,VALUE` as the key and its values, or the text of a range."""
    key, equals, rest = text.partition("=")
    if not equals or not rest.strip():
        return text, None
    return key.strip(), rest.strip() if _RANGE.fullmatch(rest) else [parse_value(part) for part in _at_commas(rest)]


def _at_commas(text: str) -> list[str]:
    """The parts between commas that stand neither in brackets nor in quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and not depth:
            parts.append("")
            continue
        parts[-1] += character
    return [part.strip() for part in parts]


def _axis(key: str, values: Any, where: str) -> Axis:
    """The checked values of one key."""
    parts = split_key(key)
    if parts is None or values is None:
        hint = "for example `--grid method.temperature=1,2,4`"
        raise ProfileError(f"`{key}` is not a dotted key with values", where=where, hint=hint)
    if parts[0] == "seed":
        raise ProfileError("`seed` is not a key of the grid", where=where, hint="`--seeds 0,1,2` names seeds")
    if parts[0] == "sweep":
        raise ProfileError("a key of [sweep] is not one of the grid", where=where)
    if isinstance(values, str):
        return _range(key, values, where)
    if not isinstance(values, list) or not values or "" in values:
        raise ProfileError(f"`{key}` needs a list of values, or a range such as `1..16`", where=where)
    if key in ("method", "teacher") and not all(isinstance(value, str) for value in values):
        raise ProfileError(f"`{key}` takes names, as `--{key}` does", where=where)
    if repeated := [value for number, value in enumerate(values) if repr(value) in map(repr, values[:number])]:
        raise ProfileError(f"`{key}` has the value `{repeated[0]}` twice", where=where)
    return tuple(values)


def _range(key: str, text: str, where: str) -> Range:
    found = _RANGE.fullmatch(text)
    low, high = (parse_value(found[1]), parse_value(found[2])) if found else (None, None)
    numbers = [value for value in (low, high) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)]
    if found is None or len(numbers) < 2:
        raise ProfileError(f"`{key}` needs a list of values, or a range such as `1..16` or `0.1..10 log`", where=where)
    made = Range(numbers[0], numbers[1], bool(found[3]))
    if not made.low < made.high or (made.log and made.low <= 0):
        why = "ends before it begins" if not made.low < made.high else "has no logarithm: it must begin above 0"
        raise ProfileError(f"the range `{key}={made}` {why}", where=where)
    return made
