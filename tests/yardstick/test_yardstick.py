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


@pytest.fixture
def exact() -> bool:
    same: bool = RECORDED["fingerprint"] == yardstick.fingerprint()
    return same


def test_every_case_is_recorded() -> None:
    assert list(RECORDED["cases"]) == list(yardstick.CASES)


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
