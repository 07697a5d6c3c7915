"""Torch files are read as they are, whatever form they have; nothing is kept of them, and nothing written."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from distillctl.errors import DataError
from distillctl.weights import read_file, torch_files
from distillctl.weights.state_dict import read_state_dict

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


def same(state, expected=WEIGHTS):
    return list(state) == list(expected) and all(torch.equal(state[name], value) for name, value in expected.items())


@pytest.fixture
def file(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def values(zipped):
    base = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    yield from (
        ("dense", base),
        ("tied", base),
        ("transposed", base.t()),
        ("strided", base[::2, 1:3]),
        ("part", base[2]),
        ("expanded", base[:1].expand(5, 4)),
        ("channels_last", torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)),
        ("scalar", torch.tensor(2.5)),
        ("none", torch.zeros(0, 3)),
        ("none_too", torch.zeros(3, 0, 2)),
        ("parameter", nn.Parameter(base.clone())),
        ("conjugate_part", torch.randn(3, dtype=torch.complex64).conj().imag),
        ("conjugate", torch.randn(3, dtype=torch.complex64).conj()),
        ("special", torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])),
        ("bool", torch.tensor([True, False])),
    )
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    if zipped:  # the old form does not know these
        kinds += [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64]
    yield from ((str(kind), (base.abs() * 9).to(kind)) for kind in kinds)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_survives(zipped, tmp_path):
    expected = {f"layer.{name}": value for name, value in values(zipped)}
    expected |= {name: torch.ones(1) for name in ("__metadata__", "", "0", "ünïcödé", "with space", "a" * 900)}
    torch.save(expected, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    for _ in range(2):  # what is done to the tensors of one reading is nothing to the file
        state = read_file(tmp_path / "x.pth")
        assert list(state) == list(expected)
        for name, value in expected.items():
            assert state[name].dtype == value.dtype, name
            assert state[name].shape == value.shape, name
            assert state[name].is_contiguous()
            a, b = (x.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8) for x in (state[name], value))
            assert torch.equal(a, b), name
        state["layer.dense"].zero_()  # is nobody else's
        assert state["layer.tied"].any()


def test_a_large_file_is_mapped_and_nothing_is_written(file, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    seen = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **keywords: (seen.append(keywords["mmap"]), load(*args, **keywords))[1])
    assert same(read_state_dict(file))
    torch.save({"model": WEIGHTS}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_state_dict(tmp_path / "old.pth"))
    assert seen == [True, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.pth", "x.pth"]


def test_an_archive_that_another_program_packed_is_unpacked(file, tmp_path):
    """Bytes that are packed cannot be mapped as numbers."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert same(read_state_dict(tmp_path / "packed.pth"))


def test_an_archive_whose_parts_begin_anywhere_is_read(file, tmp_path):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "odd.pth", "w") as new:
        for number, entry in enumerate(old.infolist()):
            new.writestr(zipfile.ZipInfo(entry.filename), old.read(entry))
            new.writestr(f"x/{number}", "o" * (2 * number + 1))
    assert same(read_state_dict(tmp_path / "odd.pth"))


@pytest.mark.parametrize("change", [lambda path: torch.save({"late": torch.ones(9)}, path), Path.unlink], ids=["written", "deleted"])
def test_a_file_that_changes_meanwhile_is_told(change, file, monkeypatch):
    load = torch_files._load

    def slowly(path, *rest):
        found = load(path, *rest)
        found = found._replace(tensors={name: value.clone() for name, value in found.tensors.items()})
        change(path)
        return found

    monkeypatch.setattr(torch_files, "_load", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        read_state_dict(file)


def test_a_file_whose_time_is_set_back_has_changed_all_the_same(file, monkeypatch):
    load, before = torch_files._load, file.stat()

    def slowly(path, *rest):
        found = load(path, *rest)
        found = found._replace(tensors={name: value.clone() for name, value in found.tensors.items()})
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return found

    monkeypatch.setattr(torch_files, "_load", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        read_state_dict(file)


def refused_in_plain_words(path, words):
    with pytest.raises(DataError, match=words) as caught:
        read_state_dict(path)
    message = caught.value.problems[0].message
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("name", ["\x1b[2Jgone", "two\nlines", "a" * 1001, "half \ud800"])
def test_names_that_would_not_stay_in_their_message_are_refused(name, tmp_path):
    torch.save({name: torch.ones(1)}, tmp_path / "x.pth")
    refused_in_plain_words(tmp_path / "x.pth", "whose name is not plain text")
    torch.save({name: 1}, tmp_path / "y.pth")
    refused_in_plain_words(tmp_path / "y.pth", "no weights that can be found")


def test_such_names_in_safetensors_are_refused(tmp_path):
    safetensors.torch.save_file({"\x1b[2Jgone": torch.ones(1)}, tmp_path / "x")
    refused_in_plain_words(tmp_path / "x", "whose name is not plain text")


FIRST_BYTES = {
    "empty": (b"", "is empty"),
    "page": (b"\n<html><body>404", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "compressed with gzip"),
    "xz": (b"\xfd7zXZ\x00" + bytes(50), "compressed with xz"),
    "tar": (bytes(257) + b"ustar" + bytes(700), "is a tar archive"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "text": (b"epoch 3", "damaged or not a file of weights"),
    "old_pickle": (b"(dp0\nS'a'\nI1\ns.", "damaged or not a file of weights"),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_first_bytes(name, tmp_path):
    content, words = FIRST_BYTES[name]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.posix
def test_devices_pipes_and_folders_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a device or a pipe"):
            read_state_dict(path)
    for path in (tmp_path, tmp_path / "none", tmp_path / "x\0y", tmp_path / ("x" * 300), tmp_path / "pipe" / "x"):
        with pytest.raises(DataError):
            read_state_dict(path)
