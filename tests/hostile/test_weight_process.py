"""The process that opens torch files: its limits hold, what becomes of it is told in a sentence, and it gets no more than it needs."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from distillctl.errors import DataError, MachineError
from distillctl.weights import process
from distillctl.weights.process import Limits, run_child
from distillctl.weights.state_dict import read_state_dict
from distillctl.weights.torch_files import NAMES, UnwritableError, convert

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


@pytest.fixture
def limits():
    return Limits.for_size(1000)


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


def test_a_whole_file_is_converted(tmp_path, limits):
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth")
    run_child(tmp_path / "x.pth", tmp_path / "out", limits)
    with safetensors.safe_open(tmp_path / "out", "pt") as file:
        assert json.loads(file.metadata()[NAMES]) == list(WEIGHTS)
        assert torch.equal(file.get_tensor("0"), WEIGHTS["fc.weight"])


@pytest.mark.slow
def test_paths_that_are_relative_odd_or_no_utf8(tmp_path, limits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    source = Path(os.fsdecode(b"a 'b' \xff.pth"))
    torch.save(3, tmp_path / "x")
    (tmp_path / "x").rename(source)
    with pytest.raises(DataError, match="of type int") as caught:
        run_child(source, Path("out"), limits)
    assert caught.value.problems[0].message.startswith(f"`{source}`")


@pytest.mark.slow
def test_a_file_that_asks_for_terabytes_is_refused(tmp_path, limits):
    (tmp_path / "x.pth").write_bytes(legacy_opcodes(claiming_numbers(10**12)))
    with pytest.raises(DataError, match="asks for far more memory than a file of its size needs"):
        run_child(tmp_path / "x.pth", tmp_path / "out", limits)


@pytest.mark.slow
def test_memory_is_counted_from_what_torch_takes(tmp_path):
    torch.save({"x": torch.zeros(50 << 18)}, tmp_path / "x.pth")  # 50 MiB
    few, enough = (Limits(memory, 1 << 30, 60, 300) for memory in (20 << 20, 300 << 20))
    with pytest.raises(DataError, match="memory"):
        run_child(tmp_path / "x.pth", tmp_path / "out", few)
    run_child(tmp_path / "x.pth", tmp_path / "out", enough)


@pytest.mark.slow
def test_more_than_may_be_written_is_refused(tmp_path):
    torch.save({"x": torch.zeros(1).expand(1 << 20)}, tmp_path / "x.pth")
    with pytest.raises(DataError, match="far more memory"):
        run_child(tmp_path / "x.pth", tmp_path / "out", Limits(1 << 30, 1 << 20, 60, 300))


@pytest.mark.slow
def test_work_without_end_is_ended(tmp_path):
    (tmp_path / "x.pth").write_bytes(legacy_opcodes(widening()))
    with pytest.raises(DataError, match="takes far longer to open"):
        run_child(tmp_path / "x.pth", tmp_path / "out", Limits(1 << 30, 1 << 20, 1, 300))


@pytest.mark.slow
def test_limits_are_set_for_good():
    script = """
import resource as r
from distillctl.weights.child import _limit
_limit(1 << 30, 5000, 7)
print([r.getrlimit(x) for x in (r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_NPROC)], r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_AS))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "[(5000, 5000), (0, 0), (0, 0)]" in told
    assert str(resource.RLIM_INFINITY) not in told


def test_a_full_disk_is_not_the_fault_of_the_file(tmp_path):
    torch.save(WEIGHTS, tmp_path / "x.pth")
    (tmp_path / "out").mkdir()
    with pytest.raises(UnwritableError, match="Is a directory"):
        convert(tmp_path / "x.pth", tmp_path / "out", tmp_path / "x.pth", 1 << 30)


# What became of the process. These start a Python that does something else.


@pytest.fixture
def does(monkeypatch, tmp_path):
    def start(script, patience=60.0):
        monkeypatch.setattr(process, "_START", script)
        run_child(tmp_path / "x.pth", tmp_path / "out", Limits(1, 1, 1, patience))

    return start


@pytest.mark.parametrize(
    ("name", "words"), [("SIGSEGV", r"crashed \(SIGSEGV\)"), ("SIGABRT", "SIGABRT"), ("SIGKILL", "was killed"), ("SIGXCPU", "far longer")]
)
def test_a_process_that_is_ended_by_a_signal(name, words, does):
    with pytest.raises(DataError, match=words) as caught:
        does(f"import os; os.kill(os.getpid(), {signal.Signals[name].value})")
    assert caught.value.problems[0].hint


@pytest.mark.parametrize("script", ["import time; time.sleep(60)", "while True: print('x' * 1000)"])
def test_a_process_that_does_not_end(script, does, tmp_path):
    started = time.monotonic()
    with pytest.raises(DataError, match="far longer"):
        does(script, patience=0.5)
    assert time.monotonic() - started < 20


def test_a_process_that_fails_by_itself_is_a_bug_and_shows_its_traceback(does):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        does("1 / 0")
    with pytest.raises(RuntimeError, match="failed"):
        does("pass")


def test_a_process_gets_no_secrets(does, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    with pytest.raises(RuntimeError) as caught:
        does("import os, sys; sys.exit(repr(dict(os.environ)))")
    assert "OMP_NUM_THREADS" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_machine_that_starts_no_process(monkeypatch, tmp_path, limits):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(MachineError, match="no process can be started to open"):
        run_child(tmp_path / "x.pth", tmp_path / "out", limits)


# Bombs that are told before anything large happens.


@pytest.fixture
def _in_this_process(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(process, "run_child", lambda source, target, limits: convert(source, target, source, 32 << 20))


def archive(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {"data.pkl": pickle.dumps({}, 2), "version": b"3\n", **parts}.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def claiming(content, size):
    """The archive with `size` as the unpacked size of its first part, in the directory at the end."""
    at = content.index(b"PK\x01\x02") + 24
    return content[:at] + size.to_bytes(4, "little") + content[at + 4 :]


BOMBS = {
    "packed_zeros": (lambda: archive(zeros=bytes(64 << 20)), "memory"),
    "claimed_size": (lambda: claiming(archive(), 0xFFFF0000), "memory"),
    "nested_lists": (lambda: legacy_opcodes(b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."), "of type list"),
    "nested_tuples": (lambda: legacy_opcodes(b"\x80\x02)" + b"\x85" * 300_000 + b"."), "of type tuple"),
    "nested_mappings": (lambda: legacy_opcodes(b"\x80\x02" + b"}K\x00" * 100_000 + b"N" + b"s" * 100_000 + b"."), "the keys `0`"),
    "list_in_itself": (lambda: legacy_opcodes(b"\x80\x02]q\x00h\x00a."), "of type list"),
    "mapping_in_itself": (lambda: legacy_opcodes(b"\x80\x02}q\x00K\x01h\x00s."), "the keys `1`"),
    "number_without_end": (lambda: legacy_opcodes(b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(64) + b"."), "damaged"),
    "text_without_end": (lambda: legacy_opcodes(b"\x80\x02X\xff\xff\xff\xffabc."), "damaged"),
    "memo_without_end": (lambda: legacy_opcodes(b"\x80\x02Nr\xff\xff\xff\xff."), "of type NoneType"),
}


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name, tmp_path):
    make, words = BOMBS[name]
    (tmp_path / "x.pth").write_bytes(make())
    with pytest.raises(DataError, match=words) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert len(caught.value.problems[0].message) < 500


@pytest.mark.slow
def test_the_process_ends_with_the_one_that_started_it(tmp_path):
    """Killed, the first can tell the second nothing."""
    script = """
import sys
from pathlib import Path
from distillctl.weights import process
held = "import distillctl.weights.child as c, os, time; "
held += f"c._limit = lambda *_: (open({sys.argv[1]!r}, 'w').write(str(os.getpid())), time.sleep(600)); "
process._START = process._START.replace("main(sys", held + "c.main(sys")
process.run_child(Path("x"), Path("y"), process.Limits(1 << 30, 1 << 20, 60, 600))
"""
    seen = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", script, str(seen)]) as parent:
        deadline = time.monotonic() + 60
        while not (seen.exists() and seen.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.kill()
    child = int(seen.read_text())
    while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_whose_starter_is_gone_already_does_nothing(tmp_path):
    job = {"parent": 1, "source": "x", "target": "y", "shown_as": "x", "memory": 1 << 30, "written": 1, "seconds": 1}
    script = "import sys; from distillctl.weights.child import main; main(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, json.dumps(job)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b""), "an error of another kind says something"
