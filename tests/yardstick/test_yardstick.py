"""A handful of the yardstick's runs leave what was recorded; `measure.py compare` looks at all of them."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location("yardstick_measure", Path(__file__).with_name("measure.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
yardstick = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = yardstick  # where dataclasses look for it
_SPEC.loader.exec_module(yardstick)
RECORDED = json.loads(yardstick.RECORDED.read_text(encoding="utf-8"))
QUICK = ("method dkd", "method ctkd(dkd)", "dot, phases and two passes", "moving average behind a phase", "in parts")


NOTHING = yardstick._hash(b"")


@pytest.fixture
def exact() -> bool:
    same: bool = RECORDED["fingerprint"] == yardstick.fingerprint()
    return same


def test_every_case_is_recorded() -> None:
    assert list(RECORDED["cases"]) == list(yardstick.CASES)


def test_every_method_has_a_case() -> None:
    methods = {method["name"] for method in json.loads(yardstick._called(["list-methods", "--json"]))["methods"]}
    assert {name for name in methods if f"method {name}" not in yardstick.CASES} == set()


@pytest.mark.parametrize("name", yardstick.CASES)
def test_no_text_is_recorded_as_nothing(name: str) -> None:
    """The hash of an empty text is equal to itself, whatever the command printed."""
    assert NOTHING not in (RECORDED["cases"][name]["check"], RECORDED["cases"][name]["resolved"])


@pytest.mark.parametrize("line", ["name = kd", "lr 0.02 profile.toml", "plain", "tfkd-self", "warm-up = 0.2"])
def test_each_line_of_a_text_counts(line: str) -> None:
    text = f"value   from\n-----   ----\nseed    5\n{line}\n"
    assert yardstick._text_hash(text) != yardstick._text_hash(text.replace(line, f"{line}1"))
    assert line in yardstick._normal(text).splitlines()


def test_the_folder_and_the_width_it_gives_do_not_count() -> None:
    wide = f"value    from\n-------  ----\nroot     {Path.cwd()}/photos\n"
    assert yardstick._normal(wide) == "value from\nroot HERE/photos"


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in yardstick.CASES])
def test_a_run_leaves_what_it_left_before(name: str, exact: bool) -> None:
    assert list(yardstick.differences(RECORDED["cases"][name], yardstick.measure(name), exact=exact)) == []


def _set(measured: Any, path: str, value: Any) -> Any:
    *way, last = path.split(".")
    changed = copy.deepcopy(measured)
    place = changed
    for part in way:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "elsewhere"),
    [
        ("student.bits", "0", False),
        ("student.form", "0", True),
        ("state.optimizer.bits", "0", False),
        ("check", "0", True),
        ("resolved", "0", True),
        ("files.0", "other", True),
        ("student.file_bits", "0", False),
        ("metrics.0.terms.task", 9.0, True),
        ("metrics.1.lr", 0.5, True),
        ("metrics.0.val.count", 7, True),
        ("result.best.epoch", 7, False),
        ("eval.top1", 2.0, True),
    ],
)
def test_a_difference_is_told(path: str, value: Any, elsewhere: bool) -> None:
    """elsewhere: on another machine too, where bits differ."""
    before = RECORDED["cases"]["method dkd"]
    changed = _set(before, path, value)
    assert [line.partition(":")[0].replace("[", ".").replace("]", "") for line in yardstick.differences(before, changed, exact=True)] == [
        f".{path}"
    ]
    assert bool(list(yardstick.differences(before, changed, exact=False))) == elsewhere
    assert list(yardstick.differences(before, before, exact=True)) == []
