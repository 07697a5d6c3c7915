"""Safetensors files hold no code; what else their headers may claim is refused in a sentence, before anything of that size is made."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import safetensors.torch
import torch

from distillctl.errors import DataError
from distillctl.weights.state_dict import read_state_dict


def file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(kind="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets), **more}


NUMBER = bytes(4)

HOSTILE = {
    "no_header": (b"\x01", "claims"),
    "header_larger_than_the_file": (file({}, length=1 << 40), "its header claims 1099511627776 bytes"),
    "header_of_largest_number": (file({}, length=(1 << 64) - 1), "its header claims"),
    "no_json": (file(b"{nothing}"), "not JSON"),
    "no_utf8": (file(b'{"\xff": 1}'), "not JSON"),
    "deep_json": (file(b"[" * 100_000), "not JSON"),
    "deep_objects": (file(b'{"a":' * 100_000), "not JSON"),
    "list": (file([1, 2]), "not a JSON object"),
    "text_after_header": (file(b'{"x": 1} {"y"'), "not JSON"),
    "entry_is_a_number": (file({"x": 3}), "`x` is not described"),
    "unknown_type": (file({"x": entry("F4")}, NUMBER), "of the type `F4`, which is not read"),
    "type_to_be_executed": (file({"x": entry("__import__('os').system('id')")}, NUMBER), "is not read"),
    "type_is_a_list": (file({"x": entry(["F32"])}, NUMBER), "is not read"),
    "no_shape": (file({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, NUMBER), "`x` has no shape"),
    "negative_shape": (file({"x": entry(shape=(-1, -1))}, NUMBER), "`x` has no shape"),
    "shape_of_fractions": (file({"x": entry(shape=(1.0,))}, NUMBER), "`x` has no shape"),
    "shape_of_truths": (file({"x": entry(shape=(True,))}, NUMBER), "`x` has no shape"),
    "overflow": (file({"x": entry(shape=(1 << 33, 1 << 33))}, NUMBER), "a shape that no tensor has"),
    "overflow_beside_zero": (file({"x": entry(shape=(0, 1 << 40, 1 << 40), offsets=(0, 0))}), "a shape that no tensor has"),
    "thousand_dimensions": (file({"x": entry(shape=[1] * 1000)}, NUMBER), "a shape that no tensor has"),
    "number_of_many_digits": (file(b'{"x": {"dtype": "F32", "shape": [' + b"9" * 10_000 + b'], "data_offsets": [0, 4]}}'), "not JSON"),
    "offsets_beyond_the_file": (file({"x": entry(offsets=(0, 4 << 30), shape=(1 << 30,))}, NUMBER), "not a whole"),
    "offsets_backwards": (file({"x": entry(offsets=(4, 0))}, NUMBER), "not a whole"),
    "offsets_negative": (file({"x": entry(offsets=(-4, 0))}, NUMBER), "not a whole"),
    "offsets_overlap": (file({"x": entry(), "y": entry()}, NUMBER), "not a whole"),
    "offsets_with_a_hole": (file({"x": entry(), "y": entry(offsets=(8, 12))}, NUMBER * 3), "not a whole"),
    "offsets_of_another_size": (file({"x": entry(shape=(2,))}, NUMBER), "not a whole"),
    "offsets_are_text": (file({"x": entry(offsets=("0", "4"))}, NUMBER), "not a whole"),
    "no_offsets": (file({"x": {"dtype": "F32", "shape": [1]}}, NUMBER), "not a whole"),
    "more_at_the_end": (file({"x": entry()}, NUMBER * 2), "not a whole"),
    "metadata_is_a_list": (file({"__metadata__": [1], "x": entry()}, NUMBER), "not a whole"),
    "metadata_holds_numbers": (file({"__metadata__": {"a": 1}, "x": entry()}, NUMBER), "not a whole"),
    "twice_the_same": (file(f'{{"x":{json.dumps(entry())},"x":{json.dumps(entry(offsets=(4, 8)))}}}'.encode(), NUMBER * 2), "not a whole"),
    "nothing": (file({}), "holds no weights"),
    "terminal": (file({"\x1b]0;gone\x07": entry("\x1b[2J")}, NUMBER), "is of the type"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses(name, tmp_path):
    content, words = HOSTILE[name]
    (tmp_path / "x.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_state_dict(tmp_path / "x.safetensors")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = caught.value.problems[0].message
    assert words in message
    assert message.isprintable()
    assert len(message) < 500
    assert peak < 100 << 20


def test_refuses_a_header_that_is_larger_than_any(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(file(b"{" + b" " * (33 << 20) + b"}"))
    with pytest.raises(DataError, match="larger than any that is needed"):
        read_state_dict(tmp_path / "x.safetensors")


def test_reads_what_is_odd_but_whole(tmp_path):
    state = {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0), "ints": torch.arange(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    metadata = {"format": "pt", "note": "cos\nsystem\n(S'id'\ntR.", "names": "[1]"}
    safetensors.torch.save_file(state, tmp_path / "x", metadata)
    found = read_state_dict(tmp_path / "x")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in state.items())
