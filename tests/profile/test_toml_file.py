"""Lines of keys, as `tomllib` would give them if it told them."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillctl.profile.toml_file import LimitError, key_lines

SAMPLE = '''seed = 1 # [train]
"quoted key".'x.y' = 2

[ train ] # comment
epochs = 3
text = """
epochs = 4
[no]
\\""" # still inside
"""
raw = \'\'\'[[no]]
key = 1\'\'\'
list = [ # comment ]
  "a]", {in = 1},
  [2,
   3],
]
after = {a = {b = "}"}, c.d = 1}
[[method]]
name = "kd"
[method.inner]
beta = 1
[[method]]
name = "x"
inner.beta = 2
[a."b c"]
d = 1979-05-27T07:32:00Z
'''


def test_sample():
    lines = key_lines(SAMPLE)
    tomllib.loads(SAMPLE)
    expected = {
        ("seed",): 1,
        ("quoted key",): 2,
        ("quoted key", "x.y"): 2,
        ("train",): 4,
        ("train", "epochs"): 5,
        ("train", "text"): 6,
        ("train", "raw"): 11,
        ("train", "list"): 13,
        ("train", "list", 0): 14,
        ("train", "list", 1): 14,
        ("train", "list", 1, "in"): 14,
        ("train", "list", 2): 15,
        ("train", "list", 2, 0): 15,
        ("train", "list", 2, 1): 16,
        ("train", "after"): 18,
        ("train", "after", "a"): 18,
        ("train", "after", "a", "b"): 18,
        ("train", "after", "c"): 18,
        ("train", "after", "c", "d"): 18,
        ("method",): 19,
        ("method", 0): 19,
        ("method", 0, "name"): 20,
        ("method", 0, "inner"): 21,
        ("method", 0, "inner", "beta"): 22,
        ("method", 1): 23,
        ("method", 1, "name"): 24,
        ("method", 1, "inner"): 25,
        ("method", 1, "inner", "beta"): 25,
        ("a",): 26,
        ("a", "b c"): 26,
        ("a", "b c", "d"): 27,
    }
    assert lines == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab.=[]{}\"'#\\\n\r ,1é"), max_size=60) | st.text(max_size=40))
def test_any_text_ends_and_finds_what_tomllib_finds(text):
    try:
        lines = key_lines(text)
    except LimitError:
        return
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    try:
        data = tomllib.loads(text)
    except ValueError:
        return
    escaped = "\\" in text
    for key in keys_of(data.items(), ()):
        assert key in lines or escaped, key


def keys_of(items, prefix):
    for name, value in items:
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from keys_of(value.items(), (*prefix, name))
        elif isinstance(value, list):
            yield from keys_of(enumerate(value), (*prefix, name))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\n" + "a." * 16 + "a = 1", 2),
        ("x = 1\n[" + "a." * 16 + "a]", 2),
        ("\n\n" + "a" * 257 + " = 1", 3),
        ("a = " + "[" * 17, 1),
        ("a = " + "[\n" * 17, 17),
        ("a = [\n" + "{a=" * 16, 2),
        ("\n" + "[" * 17, 2),
    ],
)
def test_limits(text, line):
    with pytest.raises(LimitError) as caught:
        key_lines(text)
    assert caught.value.line == line


def test_just_within_the_limits():
    key_lines("a." * 15 + "a = 1\n" + "b = " + "[" * 16 + "]" * 16 + "\n" + "c" * 256 + " = 1")
