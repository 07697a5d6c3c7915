"""What is written reads back equal, whatever it is; or it is refused."""

from __future__ import annotations

import datetime
import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillctl.profile.writing import key_text, value_text, write_toml

ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m)))
SCALARS = (
    st.text()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.booleans()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=ZONES)
)  # fmt: skip
KEYS = st.text(max_size=8) | st.sampled_from(["a", "a.b", "", "a\n", '"', "\\x41", "ключ"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


def same(a, b):
    """Equality with types, and with NaN equal to NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_reads_back_equal(data):
    read = tomllib.loads(write_toml(data))
    assert same(read, data)


@pytest.mark.parametrize(
    "value",
    [
        "\\x41", "a\\\\x", "\x00\x7f\x1b[31m", '"""', "'''", "end\n", "\r\n", "é😀", "# no comment", " ",
        1e22, 1e-7, 5e-324, -0.0, 1.0, 1, True, 10**18, [], {}, [[], [[1], ["a"]]], [{"a": 1}, {}], [{"a": [{"b": {}}]}],
        [1, {"a": 2}], {"a": {"b": {"c": [{"d": 1}]}}, "e": 1},
    ],
)  # fmt: skip
def test_values_that_need_care(value):
    read = tomllib.loads(write_toml({"x": value}))["x"]
    assert same(read, value)
    assert same(tomllib.loads(f"x = {value_text(value)}")["x"], value)


@pytest.mark.parametrize("key", ["a", "a-b_1", "a.b", "", " ", "a\n", '"', "é", "\\"])
def test_keys(key):
    assert tomllib.loads(f"{key_text(key)} = 1") == {key: 1}


@pytest.mark.parametrize("value", [None, object(), {1, 2}, b"bytes", "\ud800", {3: 1}, [None]])
def test_what_toml_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"TOML"):
        write_toml({"x": value})


def test_tables_are_written_as_tables():
    text = write_toml({"seed": 1, "train": {"epochs": 2, "workers": "auto"}, "method": [{"name": "a"}, {"name": "b", "inner": {"c": 1}}]})
    assert text == (
        'seed = 1\n\n[train]\nepochs = 2\nworkers = "auto"\n\n[[method]]\nname = "a"\n\n[[method]]\nname = "b"\n\n[method.inner]\nc = 1\n'
    )
