"""Files of weights that would run code if a pickle in them were believed. None does, and plain unpickling shows that each one could.

A payload that runs leaves a marker. The corpus holds what is known of pickles: functions that run text or programs, every opcode that
calls or builds, what torch's own functions do when they are called, and the forms and protocols in which files come.
"""

from __future__ import annotations

import argparse
import bdb
import code
import cProfile
import functools
import importlib
import io
import itertools
import logging
import operator
import os
import pathlib
import pickle
import posix
import pty
import runpy
import shutil
import struct
import subprocess
import sys
import tarfile
import timeit
import webbrowser
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.jit import unsupported_tensor_ops
from torch.utils import collect_env

from distillctl.errors import DataError
from distillctl.weights import torch_files
from distillctl.weights.state_dict import read_state_dict

WEIGHTS = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts

    def __call__(self):
        raise TypeError("it stands for a function, for which pickle asks that it can be called")


class Build:
    """Pickles as an object of a class with a state, its `__setstate__` among it."""

    def __init__(self, kind, *states):
        self.kind, self.states = kind, states

    def opcodes(self):
        state = b"".join(state + b"b" for state in self.states)
        return b"\x80\x02" + f"c{self.kind.__module__}\n{self.kind.__qualname__}\n".encode() + b")\x81" + state + b"."


def touch(marker):
    return f"touch {marker}"


def python(marker):
    return f"open({str(marker)!r}, 'w').close()"


def text(value):
    """A string as an opcode of protocol 0."""
    return f"V{value}\n".encode()


# The forms of files.


def zipped(value, protocol=2):
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    return buffer.getvalue()


def zipped_opcodes(opcodes, **parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"data.pkl": opcodes, "version": b"3\n", "byteorder": b"little", **parts}.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def legacy(value, protocol=2):
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def legacy_opcodes(opcodes):
    """A file of the form before PyTorch 1.6, with `opcodes` where the object is."""
    head = torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}
    return b"".join(pickle.dumps(value, 2) for value in head) + opcodes + pickle.dumps([], 2)


def tarred(**parts):
    """A file of the form before PyTorch 0.1.10."""
    buffer = io.BytesIO()
    empty = {"storages": pickle.dumps(0, 2) + pickle.dumps([], 2), "tensors": pickle.dumps(0, 2), "pickle": pickle.dumps({}, 2)}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {**empty, **parts}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def calls(marker):
    """Functions that run text, a program or another pickle: name → what pickles as a call of it."""
    script = marker.with_suffix(".py")
    script.write_text(python(marker))
    hub = marker.with_suffix(".hub")
    hub.mkdir(exist_ok=True)
    (hub / "hubconf.py").write_text(f"{python(marker)}\ndef model(): return 1\n")
    array = marker.with_suffix(".npy")
    np.save(array, np.array([Call(os.system, touch(marker))], dtype=object), allow_pickle=True)
    inner = Call(os.system, touch(marker))
    return {
        "os_system": inner,
        "posix_system": Call(posix.system, touch(marker)),
        "os_popen": Call(os.popen, touch(marker)),
        "os_mkdir": Call(os.mkdir, str(marker)),
        "os_spawn": Call(os.spawnlp, os.P_WAIT, "touch", "touch", str(marker)),
        "subprocess_popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "subprocess_output": Call(subprocess.getoutput, touch(marker)),
        "pty_spawn": Call(pty.spawn, ["touch", str(marker)]),
        "eval": Call(eval, python(marker)),
        "exec": Call(exec, python(marker)),
        "exec_of_compiled": Call(exec, Call(compile, python(marker), "x", "exec")),
        "open": Call(open, str(marker), "w"),
        "file_io": Call(io.FileIO, str(marker), "w"),
        "import_and_getattr": Call(Call(getattr, Call(__import__, "os"), "system"), touch(marker)),
        "importlib": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), touch(marker)),
        "attrgetter": Call(Call(operator.attrgetter("system"), Call(__import__, "os")), touch(marker)),
        "methodcaller": Call(operator.methodcaller("touch"), pathlib.PosixPath(marker)),
        "path_touch": Call(pathlib.Path.touch, pathlib.PosixPath(marker)),
        "partial": Call(functools.partial(os.system, touch(marker))),
        "reduce": Call(functools.reduce, eval, [python(marker), {}]),
        "map": Call(list, Call(map, os.system, [touch(marker)])),
        "starmap": Call(list, Call(itertools.starmap, os.system, [(touch(marker),)])),
        "runpy": Call(runpy.run_path, str(script)),
        "timeit": Call(timeit.timeit, python(marker), "pass", timeit.default_timer, 1),
        "profile": Call(cProfile.run, python(marker)),
        "debugger": Call(operator.methodcaller("run", python(marker)), Call(bdb.Bdb)),
        "interpreter": Call(operator.methodcaller("runsource", python(marker)), Call(code.InteractiveInterpreter)),
        "webbrowser": Call(operator.methodcaller("open", str(marker)), Call(webbrowser.GenericBrowser, ["touch", "%s"])),
        "copy_file": Call(shutil.copyfile, str(script), str(marker)),
        "log_file": Call(logging.FileHandler, str(marker)),
        "numpy_load": Call(np.load, str(array), None, True),
        "numpy_runstring": Call(np.testing._private.utils.runstring, python(marker), {}),
        "pickle_in_pickle": Call(pickle.loads, pickle.dumps(inner)),
        "pickle_three_deep": Call(pickle.loads, pickle.dumps(Call(pickle.loads, pickle.dumps(inner, 0)), 4)),
        "torch_load": Call(functools.partial(torch.load, weights_only=False), io.BytesIO(zipped(inner))),
        "torch_hub": Call(functools.partial(torch.hub.load, source="local"), str(hub), "model"),
        "torch_storage_from_bytes": Call(torch.storage._load_from_bytes, legacy(inner)),
        "torch_exec_wrapper": Call(unsupported_tensor_ops.execWrapper, python(marker), {}, {}),
        "torch_collect_env": Call(collect_env.run, touch(marker)),
        # What `weights_only` itself has in its list, given something to call or to hold.
        "rebuild_from_type": Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch(marker),), {}),
        "rebuild_with_hooks": Call(torch._utils._rebuild_tensor_v2, inner, 0, (1,), (1,), False, OrderedDict()),
        "rebuild_with_state": Call(torch._utils._rebuild_parameter_with_state, torch.ones(1), False, OrderedDict(), {"x": inner}),
        "rebuild_subclass": Call(torch._utils._rebuild_wrapper_subclass, inner, torch.float32, (1,), (1,), 0, torch.strided, "cpu", False),
        "ordered_dict_of": Call(OrderedDict, [("x", inner)]),
        "counter_of": Call(Counter, {"x": inner}),
    }


def places(marker):
    """Where in an ordinary file a call may stand."""
    inner = Call(os.system, touch(marker))
    return {
        "beside_the_weights": {"model": WEIGHTS, "opt": inner},
        "in_a_namespace": {"model": WEIGHTS, "opt": argparse.Namespace(x=[inner])},
        "as_a_key": {inner: torch.ones(1), **WEIGHTS},
        "in_a_set": {"model": WEIGHTS, "seen": {inner}},
        "in_the_state_of_a_tensor": {"model": WEIGHTS | {"x": with_attribute(inner)}},
        "in_an_optimizer": {"model": WEIGHTS, "optimizer": {"state": {0: {"momentum_buffer": inner}}, "param_groups": []}},
        "deep_inside": {"model": WEIGHTS, "x": functools.reduce(lambda value, _: [value], range(60), inner)},
    }


def with_attribute(value):
    tensor = torch.ones(2)
    tensor.note = value
    return tensor


def opcodes(marker):
    """Every opcode that calls or builds, written out."""
    command = text(touch(marker))
    batch = b"]" + command + b"a"  # a list with the command
    lazy = b"cbuiltins\nmap\n(cos\nsystem\n" + batch + b"t"
    whole = b"cbuiltins\ntuple\n("
    setstate = b"}" + text("__setstate__") + b"cos\nsystem\ns"
    plain = b"cos\nsystem\n" + command + b"\x85R."
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    return {
        "reduce": b"cos\nsystem\n(" + command + b"tR.",
        "inst": b"(" + command + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + command + b"o.",
        "newobj": b"\x80\x02" + whole + lazy + b"\x81t\x81.",
        "newobj_ex": b"\x80\x04" + whole + lazy + b"}\x92t}\x92.",
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + command + b"\x85R.",
        "extension": b"\x80\x02\x82\xf0" + command + b"\x85R.",
        "build_namespace": Build(argparse.Namespace, setstate, command).opcodes(),
        "build_ordered_dict": Build(OrderedDict, setstate, command).opcodes(),
        "build_exception": b"cbuiltins\nException\n)R" + setstate + b"b" + command + b"b.",
        "memo": b"\x80\x02cos\nsystem\nq\x000h\x00" + command + b"\x85R.",
        "after_an_object": pickle.dumps({"a": 1}, 2)[:-1] + b"0cos\nsystem\n" + command + b"\x85R.",
        "persistent_id": b"\x80\x02" + storage + b"cos\nsystem\n" + command + b"\x85RtQ.",
        "persistent_text": b"\x80\x02cos\nsystem\n" + command + b"\x85Rp0\nP0\n.",
        "python_2_names": b"\x80\x02c__builtin__\neval\n" + text(python(marker)) + b"\x85R.",
        "dotted_name": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93cpathlib\nPosixPath\n" + text(marker) + b"\x85R\x85R.",
        "frame": b"\x80\x05\x95" + struct.pack("<Q", len(plain)) + plain,
    }


def corpus(folder):
    """Name → content of a file that leaves the marker `folder / name` if a pickle in it is believed."""
    files = {}
    for form in (zipped, legacy, pickle.dumps):
        for name in calls(folder / "names"):
            files[f"{name}-{form.__name__}"] = lambda marker, form=form, name=name: form(calls(marker)[name], 2)
        for name in places(folder):
            if form is not pickle.dumps:  # torch alone knows how tensors are kept
                files[f"{name}-{form.__name__}"] = lambda marker, form=form, name=name: form(places(marker)[name])
        for protocol in range(6):
            files[f"protocol_{protocol}-{form.__name__}"] = lambda marker, form=form, protocol=protocol: form(
                Call(os.system, touch(marker)), protocol
            )
    for form in (zipped_opcodes, legacy_opcodes, bytes):
        for name in opcodes(folder):
            files[f"{name}-{form.__name__}"] = lambda marker, form=form, name=name: form(opcodes(marker)[name])
    for member in ("storages", "tensors", "pickle"):
        files[f"tar-{member}"] = lambda marker, member=member: tarred(**{member: pickle.dumps(Call(os.system, touch(marker)), 2)})
    files["before_the_magic_number"] = lambda marker: pickle.dumps(Call(os.system, touch(marker)), 2) + legacy(WEIGHTS)
    return {name: make(folder / name) for name, make in files.items()}


@pytest.fixture
def written(tmp_path):
    """The corpus on the disk: where the files are, and where the markers will be."""
    stored, markers = tmp_path / "files", tmp_path / "markers"
    stored.mkdir()
    markers.mkdir()
    for name, content in corpus(markers).items():
        (stored / f"{name}.pth").write_bytes(content)
    return stored, markers


def ran(stored, markers):
    return {path.stem for path in stored.iterdir() if (markers / path.stem).exists()}


def test_no_payload_runs(written):
    stored, markers = written
    accepted = []
    for path in sorted(stored.iterdir()):
        with suppress(DataError):
            read_state_dict(path)
            accepted.append(path.stem)
    assert ran(stored, markers) == set()
    assert accepted == []
    kinds = {path.stem.partition("-")[0] for path in stored.iterdir()}
    print(f"payloads: {len(kinds)} kinds in {len(list(stored.iterdir()))} files, executed: {len(ran(stored, markers))}")
    assert len(kinds) >= 40


def test_no_payload_runs_even_if_the_first_bytes_were_not_looked_at(written):
    stored, markers = written
    for path in sorted(stored.iterdir()):
        with pytest.raises(
            DataError, match=r"holds a pickled object|is damaged or not a file of weights|is pickled with protocol 4 or later"
        ):
            torch_files.read(path)
    assert ran(stored, markers) == set()


BELIEVE = """
import copyreg, pathlib, pickle, sys, torch
copyreg.add_extension("os", "system", 240)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    bare = not path.stem.startswith("tar") and path.read_bytes()[:2] != b"PK" and b"legacy" not in path.stem.encode()
    try:
        if bare:
            with path.open("rb") as file:
                pickle.load(file)
        else:
            torch.load(path, weights_only=False)
    except BaseException:
        pass
"""


@pytest.mark.slow
def test_every_payload_runs_if_it_is_believed(written):
    """The tests above can fail."""
    stored, markers = written
    subprocess.run([sys.executable, "-W", "ignore", "-c", BELIEVE, stored], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert {path.stem for path in stored.iterdir()} - ran(stored, markers) == set()
