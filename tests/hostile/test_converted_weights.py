"""A torch file is converted once: what was made of it is believed only while it is whole, and a cache that fails costs time alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from distillctl.errors import DataError, MachineError
from distillctl.weights import conversion, process, read_file
from distillctl.weights.state_dict import read_state_dict
from distillctl.weights.torch_files import UnwritableError, convert

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def converted(monkeypatch, cache):
    """The files that were converted, in this process."""
    seen = []

    def here(source, target, limits):
        seen.append(source)
        convert(source, target, source, limits.memory)

    monkeypatch.setattr(process, "run_child", here)
    return seen


@pytest.fixture
def file(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def same(state, expected=WEIGHTS):
    return list(state) == list(expected) and all(torch.equal(state[name], value) for name, value in expected.items())


def test_in_a_process_of_its_own_and_then_not_again(file, cache, monkeypatch):
    assert same(read_state_dict(file))
    monkeypatch.setattr(process, "run_child", None)
    assert same(read_state_dict(file))
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_the_content_counts_and_not_the_name(file, converted, tmp_path):
    read_state_dict(file)
    (tmp_path / "other name").write_bytes(file.read_bytes())
    assert same(read_state_dict(tmp_path / "other name"))
    assert converted == [file]
    torch.save({"model": {"a": torch.ones(1)}}, file)
    assert same(read_state_dict(file), {"a": torch.ones(1)})
    assert converted == [file, file]


def test_other_rules_make_another_entry(file, converted, monkeypatch):
    read_state_dict(file)
    monkeypatch.setattr(conversion, "_maker", lambda: "later")
    assert same(read_state_dict(file))
    assert converted == [file, file]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit": flip,
    "short": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "another": lambda path: safetensors.torch.save_file({"0": torch.ones(1)}, path),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(damage, file, converted, cache):
    read_state_dict(file)
    DAMAGE[damage](next(cache.iterdir()))
    assert same(read_state_dict(file))
    assert converted == [file, file]
    assert same(read_state_dict(file))


def test_an_entry_whose_hash_is_right_but_whose_content_is_not_ours_is_made_anew(file, converted, cache):
    read_state_dict(file)
    entry = next(cache.iterdir())
    safetensors.torch.save_file({"7": torch.ones(1)}, entry)
    entry.rename(entry.with_name(f"{entry.stem.rpartition('-')[0]}-{conversion.sha256(entry)}.safetensors"))
    assert same(read_state_dict(file))
    assert converted == [file, file]


def test_no_home_and_a_folder_that_cannot_be(file, converted, cache, monkeypatch):
    cache.parent.write_text("a file where the folder should be")
    assert same(read_state_dict(file))
    monkeypatch.setattr(conversion, "cache_folder", lambda: None)
    assert same(read_state_dict(file))
    assert converted == [file, file]


def test_a_cache_that_can_only_be_read(file, converted, cache, monkeypatch):
    read_state_dict(file)

    def read_only(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "touch", read_only)  # the superuser may write anywhere
    monkeypatch.setattr(Path, "unlink", read_only)
    assert same(read_state_dict(file))
    assert converted == [file]


def test_a_full_cache_and_a_full_machine(file, cache, monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    full = [cache]

    def here(source, target, limits):
        if any(place in target.parents for place in full):
            raise UnwritableError("No space left on device")
        convert(source, target, source, limits.memory)

    monkeypatch.setattr(process, "run_child", here)
    assert same(read_state_dict(file))
    full.append(tmp_path / "tmp")
    with pytest.raises(MachineError, match=r"there is no place to convert `.*x.pth`: No space left on device") as caught:
        read_state_dict(file)
    assert caught.value.problems[0].hint
    assert list(cache.iterdir()) == list((tmp_path / "tmp").iterdir()) == []


def test_refused_files_and_crashes_leave_nothing(tmp_path, converted, cache, monkeypatch, file):
    torch.save(3, tmp_path / "number.pth")
    with pytest.raises(DataError, match="its content is of type int"):
        read_state_dict(tmp_path / "number.pth")

    def interrupted(source, target, limits):
        target.write_bytes(b"half")
        raise KeyboardInterrupt("of the test")

    monkeypatch.setattr(process, "run_child", interrupted)
    with pytest.raises(KeyboardInterrupt, match="of the test"):
        read_state_dict(file)
    assert list(cache.iterdir()) == []


def test_what_comes_out_damaged_is_not_believed(file, cache, monkeypatch):
    monkeypatch.setattr(process, "run_child", lambda source, target, limits: target.write_bytes(b"\x08" + bytes(7) + b"{}      "))
    with pytest.raises(DataError, match="could not be converted"):
        read_state_dict(file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("change", [lambda path: torch.save({"late": torch.ones(9)}, path), Path.unlink], ids=["written", "deleted"])
def test_a_file_that_changes_meanwhile_is_told_and_not_kept(change, file, cache, monkeypatch):
    def here(source, target, limits):
        convert(source, target, source, limits.memory)
        change(source)

    monkeypatch.setattr(process, "run_child", here)
    with pytest.raises(DataError, match="changed while it was read"):
        read_state_dict(file)
    assert list(cache.iterdir()) == []


def test_the_last_used_are_kept(tmp_path, converted, cache, monkeypatch):
    monkeypatch.setattr(conversion, "KEPT_FILES", 2)
    paths = [tmp_path / f"{number}.pth" for number in range(3)]
    for number, path in enumerate(paths):
        torch.save({"x": torch.tensor(float(number))}, path)
    for age, path in ((300, paths[0]), (200, paths[1])):
        read_state_dict(path)
        for entry in cache.iterdir():
            if entry.stat().st_mtime > time.time() - 100:
                os.utime(entry, (time.time() - age,) * 2)
    read_state_dict(paths[0])  # used last
    read_state_dict(paths[2])
    assert len(list(cache.iterdir())) == 2
    del converted[:]
    for path in (paths[0], paths[2], paths[1]):
        read_state_dict(path)
    assert converted == [paths[1]]


def test_large_ones_make_room(tmp_path, converted, cache, monkeypatch):
    monkeypatch.setattr(conversion, "KEPT_BYTES", 1000)
    for number in range(3):
        torch.save({"x": torch.full((500,), float(number))}, tmp_path / "x.pth")
        assert read_state_dict(tmp_path / "x.pth")["x"][0] == number
        assert len(list(cache.iterdir())) == 1


def test_what_killed_processes_left_is_deleted_after_a_day(file, converted, cache):
    for name, age in (("converting-old", 90_000), ("converting-new", 60)):
        (cache / name).mkdir(parents=True)
        (cache / name / "weights.safetensors").write_bytes(b"half")
        os.utime(cache / name, (time.time() - age,) * 2)
    read_state_dict(file)
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {"converting-new"}


# What a converted file holds is what the file held.


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
def test_every_tensor_survives(zipped, tmp_path, converted):
    expected = {f"layer.{name}": value for name, value in values(zipped)}
    expected |= {name: torch.ones(1) for name in ("__metadata__", "", "0", "ünïcödé", "with space", "a" * 900)}
    torch.save(expected, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    for _ in range(2):  # from the conversion and from the cache
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
    assert len(converted) == 1


def refused_in_plain_words(path, words):
    with pytest.raises(DataError, match=words) as caught:
        read_state_dict(path)
    message = caught.value.problems[0].message
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("name", ["\x1b[2Jgone", "two\nlines", "a" * 1001, "half \ud800"])
def test_names_that_would_not_stay_in_their_message_are_refused(name, tmp_path, converted):
    torch.save({name: torch.ones(1)}, tmp_path / "x.pth")
    refused_in_plain_words(tmp_path / "x.pth", "whose name is no plain text")
    torch.save({name: 1}, tmp_path / "y.pth")
    refused_in_plain_words(tmp_path / "y.pth", "no weights that can be found")


def test_such_names_in_safetensors_are_refused(tmp_path):
    safetensors.torch.save_file({"\x1b[2Jgone": torch.ones(1)}, tmp_path / "x")
    refused_in_plain_words(tmp_path / "x", "whose name is no plain text")


# Files that no process is started for.


FIRST_BYTES = {
    "empty": (b"", "is empty"),
    "page": (b"\n<html><body>404", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "compressed with gzip"),
    "xz": (b"\xfd7zXZ\x00" + bytes(50), "compressed with xz"),
    "tar": (bytes(257) + b"ustar" + bytes(700), "is a tar archive"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "text": (b"epoch 3", "damaged or no file of weights"),
    "old_pickle": (b"(dp0\nS'a'\nI1\ns.", "damaged or no file of weights"),
}


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_first_bytes(name, tmp_path, converted):
    content, words = FIRST_BYTES[name]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_state_dict(tmp_path / "x.pth")
    assert converted == []


def test_devices_pipes_and_folders_are_not_waited_for(tmp_path, converted):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a device or a pipe"):
            read_state_dict(path)
    for path, message in (
        (tmp_path, "is a folder, not a file of weights"),
        (tmp_path / "none", "there is no file"),
        (tmp_path / "x\0y", "null"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "pipe" / "x", "Not a directory"),
    ):
        with pytest.raises(DataError, match=message):
            read_state_dict(path)
    assert converted == []


def planted(entry):
    """An entry for `file` under the name that anybody can compute, with other weights."""
    safetensors.torch.save_file({"0": torch.ones(1)}, entry, {conversion.torch_files.NAMES: '["evil"]'})
    return entry.rename(entry.with_name(f"{entry.stem.rpartition('-')[0]}-{conversion.sha256(entry)}.safetensors"))


def test_the_cache_is_this_users_alone(file, converted, cache):
    before = os.umask(0o002)
    try:
        read_state_dict(file)
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert next(cache.iterdir()).stat().st_mode & 0o777 == 0o600
    cache.chmod(0o777)
    assert same(read_state_dict(file))
    assert cache.stat().st_mode & 0o777 == 0o700, "of an older version"
    assert converted == [file]


def test_an_entry_that_others_may_write_to_is_not_believed(file, converted, cache):
    read_state_dict(file)
    entry = planted(next(cache.iterdir()))
    entry.chmod(0o666)
    assert same(read_state_dict(file))
    assert converted == [file, file]
    assert not entry.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")
@pytest.mark.parametrize("what", ["entry", "folder"])
def test_what_belongs_to_another_user_is_not_believed(what, file, converted, cache):
    read_state_dict(file)
    entry = planted(next(cache.iterdir()))
    entry.chmod(0o600)
    os.chown(entry if what == "entry" else cache, 12345, 12345)
    assert same(read_state_dict(file))
    assert converted == [file, file]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "link"])
def test_what_is_no_file_among_the_entries_is_not_opened(make, file, converted, cache):
    read_state_dict(file)
    entry = next(cache.iterdir())
    entry.unlink()
    make(entry)
    assert same(read_state_dict(file))
    assert converted == [file, file]


def test_a_file_whose_time_is_set_back_has_changed_all_the_same(file, cache, monkeypatch):
    def here(source, target, limits):
        convert(source, target, source, limits.memory)
        state = source.stat()
        with source.open("r+b") as content:
            content.seek(-1, os.SEEK_END)
            content.write(b"\1")
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))

    monkeypatch.setattr(process, "run_child", here)
    with pytest.raises(DataError, match="changed while it was read"):
        read_state_dict(file)


def test_what_killed_processes_left_among_temporary_files_is_deleted(file, converted, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(conversion, "cache_folder", lambda: None)
    old, new, foreign = (tmp_path / "tmp" / f"converting-{name}" for name in ("old", "new", "foreign"))
    for folder in (old, new, foreign):
        folder.mkdir()
    for folder in (old, foreign):
        os.utime(folder, (1, 1))
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
    else:
        shutil.rmtree(foreign)
    assert same(read_state_dict(file))
    assert not old.exists()
    assert new.exists()
    assert foreign.exists() == (os.geteuid() == 0)
