"""Files that claim more than they have are refused before anything large happens."""

from __future__ import annotations

import io
import pickle
import time
import zipfile

import pytest
import torch

from distillctl.engine.memory import peak_memory
from distillctl.errors import DataError
from distillctl.weights.state_dict import read_state_dict


def legacy_opcodes(opcodes):
    """A file of the form before PyTorch 1.6, with `opcodes` where the object is."""
    head = torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}
    return b"".join(pickle.dumps(value, 2) for value in head) + opcodes + pickle.dumps([], 2)


def claiming_numbers(count):
    """A storage of `count` numbers, none of which is there."""
    text = [b"X" + len(word).to_bytes(4, "little") + word for word in (b"storage", b"0", b"cpu")]
    return b"\x80\x02(" + text[0] + b"ctorch\nFloatStorage\n" + text[1] + text[2] + pickle.dumps(count, 2)[2:-1] + b"NtQ."


def widening():
    """A mapping that holds itself a thousand times: who looks for weights in it to a depth of four looks into 10^12."""
    items = [b"K" + bytes([a]) + b"K" + bytes([b]) + b"\x86h\x00" for a in range(40) for b in range(25)]
    return b"\x80\x02}q\x00(" + b"".join(items) + b"X\x05\x00\x00\x00modelh\x00u."


def archive(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {"data.pkl": pickle.dumps({}, 2), "version": b"3\n", **parts}.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def zipped(opcodes, **records):
    """A file of the zip form, with `opcodes` as its pickle."""
    return archive(**{"data.pkl": opcodes, **{f"data/{name}": content for name, content in records.items()}})


def reduced(function, number):
    """A call of a function with one number, under a name."""
    return b"\x80\x02}X\x01\x00\x00\x00a" + function + pickle.dumps(number, 2)[2:-1] + b"\x85Rs."


def claiming(content, size):
    """The archive with `size` as the unpacked size of its first part, in the directory at the end."""
    at = content.index(b"PK\x01\x02") + 24
    return content[:at] + size.to_bytes(4, "little") + content[at + 4 :]


BOMBS = {
    "packed_zeros": (lambda: archive(zeros=bytes(64 << 20)), "memory"),
    "claimed_size": (lambda: claiming(archive(), 0xFFFF0000), "memory"),
    "nested_lists": (lambda: legacy_opcodes(b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."), "of type list"),
    "nested_tuples": (lambda: legacy_opcodes(b"\x80\x02)" + b"\x85" * 300_000 + b"."), "nests tuples"),
    "deep_tuple_as_a_key": (lambda: legacy_opcodes(b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."), "nests tuples"),
    "deep_tuple_as_a_key_in_a_zip": (lambda: zipped(b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."), "nests tuples"),
    "folded_tuple_as_a_key": (lambda: zipped(b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."), "nests tuples"),
    "marked_tuple_as_a_key": (lambda: zipped(b"\x80\x02}" + b"(" * 300_000 + b"t" * 300_000 + b"Ns."), "nests tuples"),
    "nested_mappings": (lambda: legacy_opcodes(b"\x80\x02" + b"}K\x00" * 100_000 + b"N" + b"s" * 100_000 + b"."), "the keys `0`"),
    "list_in_itself": (lambda: legacy_opcodes(b"\x80\x02]q\x00h\x00a."), "of type list"),
    "mapping_in_itself": (lambda: legacy_opcodes(b"\x80\x02}q\x00K\x01h\x00s."), "the keys `1`"),
    "number_without_end": (lambda: legacy_opcodes(b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(64) + b"."), "damaged"),
    "text_without_end": (lambda: legacy_opcodes(b"\x80\x02X\xff\xff\xff\xffabc."), "damaged"),
    "storage_of_terabytes": (lambda: legacy_opcodes(claiming_numbers(1 << 40)), "asks for far more memory"),
    "storage_beyond_its_part": (lambda: zipped(claiming_numbers(1 << 20), **{"0": bytes(64)}), "claims 4194304 bytes, where 64 are"),
    "storage_that_is_not_there": (lambda: zipped(claiming_numbers(2)), "claims 8 bytes, where 0 are"),
    "bytes_from_a_number": (lambda: legacy_opcodes(reduced(b"c__builtin__\nbytearray\n", 1 << 40)), "asks for far more memory"),
    "tensor_from_a_number": (lambda: zipped(reduced(b"ctorch\nFloatTensor\n", 1 << 40)), "claims 1099511627776 bytes"),
    "mapping_that_widens": (lambda: legacy_opcodes(widening()), "no weights that can be found"),
    "memo_without_end": (lambda: legacy_opcodes(b"\x80\x02Nr\xff\xff\xff\xff."), "of type NoneType"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name, tmp_path):
    make, words = BOMBS[name]
    (tmp_path / "x.pth").write_bytes(make())
    started, before = time.process_time(), peak_memory(torch.device("cpu"))
    with pytest.raises(DataError, match=words) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert len(caught.value.problems[0].message) < 500
    assert time.process_time() - started < 20
    assert before is None or peak_memory(torch.device("cpu")) - before < 200_000_000


def test_what_stands_beside_the_weights_claims_nothing(tmp_path):
    """Numbers in settings may be larger than the file."""
    import argparse
    import datetime

    beside = {"args": argparse.Namespace(seed=1 << 50, lists=[1, {2}]), "time": datetime.datetime(2026, 1, 1), "step": 1 << 40}
    for zip_form in (True, False):
        torch.save({"state_dict": {"w": torch.ones(3)}, **beside}, tmp_path / "x.pth", _use_new_zipfile_serialization=zip_form)
        assert read_state_dict(tmp_path / "x.pth")["w"].tolist() == [1, 1, 1]
