from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from distillctl import MethodSpec, Options, PathOption
from distillctl.builtin.methods import register_method
from distillctl.testing import options_table


class Inner(Options):
    depth: Annotated[int, Field(ge=1, le=3)]
    """How deep."""


class Everything(Options):
    number: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """A number,
    on two lines, with a | in it."""
    flag: bool = False
    """A flag."""
    word: Literal["a", "b"] = "a"
    """A choice."""
    either: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """A number or a word."""
    items: list[Annotated[int, Field(ge=2)]] = [2, 3]
    """Some numbers."""
    root: PathOption = Path("data")
    """A folder."""
    text: str | None = None
    """May be missing."""
    inner: Inner
    """A table."""


@pytest.fixture
def table(monkeypatch):
    import sys
    import types

    module = types.ModuleType("made_up_options")
    module.Everything = Everything
    monkeypatch.setitem(sys.modules, "made_up_options", module)
    return options_table(MethodSpec(name="x", kind="self", summary="x", implementation="x:X", options="made_up_options:Everything"))


def test_every_kind_of_option(table):
    assert table.split("\n")[2:] == [
        "| `number` | number | `1e-05` | > 0, < 1 | A number, on two lines, with a \\| in it. |",
        "| `flag` | true or false | `false` |  | A flag. |",
        '| `word` | `"a"` or `"b"` | `"a"` |  | A choice. |',
        '| `either` | integer or `"auto"` | `"auto"` | ≥ 0 | A number or a word. |',
        "| `items` | list of integer | `[2, 3]` | ≥ 2 | Some numbers. |",
        '| `root` | path | `"data"` |  | A folder. |',
        "| `text` | string | `none` |  | May be missing. |",
        "| `inner` | table | required |  | A table. |",
        "| `inner.depth` | integer | required | ≥ 1, ≤ 3 | How deep. |",
    ]


def test_two_temperatures_are_listed():
    table = options_table(register_method()[1])
    assert "| `temperature` | number or table | `4.0` | ≥ 0.001, ≤ 10000 |" in table
    assert "| `temperature.student` | number | required | ≥ 0.001, ≤ 10000 |" in table


def test_no_options_no_table():
    assert options_table(register_method()[0]) == ""
