"""Importing, helping, listing and checking open no connection and look up no host."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from distillctl.cli.app import COMMANDS

# Notes every socket and look-up, and whatever a library may start to do it in another process.
WATCH = textwrap.dedent(
    """
    import json, sys
    seen = []
    def watch(event, arguments):
        if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.exec", "os.posix_spawn", "os.fork")):
            seen.append(event)
    sys.addaudithook(watch)
    """
)
COMMAND_LINE = """
import contextlib, io
from distillctl.cli import run
for arguments, expected in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(arguments) == expected, arguments
    assert out.getvalue() or expected, arguments
print(json.dumps(seen))
"""
EVERYTHING = """
import distillctl
for name in distillctl.__all__:
    getattr(distillctl, name)
from distillctl.plugin.registry import Registry, load
registry = Registry.load()
for catalog in (registry.methods, registry.optimizers):
    assert len(catalog)
    for spec in catalog:
        load(spec.implementation, spec.name)
print(json.dumps(seen))
"""
PROFILE = """
[dataset]
name = "cifar100"
download = true
[student]
name = "torchvision/resnet18"
weights = "IMAGENET1K_V1"
[teacher]
name = "torchvision/resnet50"
weights = "IMAGENET1K_V2"
[method]
name = "kd"
[train]
epochs = 1
"""


def events(code, folder, standard_input=""):
    """What was seen while the code ran with all plugins of this installation."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code], capture_output=True, text=True, timeout=240, check=False, input=standard_input, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_command_line(tmp_path):
    (tmp_path / "p.toml").write_text(PROFILE)
    calls = [([name, "--help"], 0) for name in COMMANDS] + [(["--help"], 0), (["--version"], 0)]
    calls += [([name], 0) for name in COMMANDS if name.startswith("list-")] + [(["plugins"], 0), (["plugins", "--json"], 0)]
    calls += [(["show", "kd"], 0), (["show", "torchvision/resnet18"], 0), (["check", "p.toml"], 0), (["check", "nowhere.toml"], 2)]
    calls += [(["check", "p.toml", "--method", "nope"], 2), (["nope"], 2), (["init"], 0), (["check", "quickstart.toml"], 0)]
    assert events(COMMAND_LINE, tmp_path, json.dumps(calls)) == []


@pytest.mark.slow
def test_every_public_name_and_method(tmp_path):
    assert [event for event in events(EVERYTHING, tmp_path) if event != "subprocess.Popen"] == []  # torch asks the machine what it is


def test_a_connection_would_be_seen(tmp_path):
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 1), 1)\nexcept OSError: pass\nprint(json.dumps(seen))"
    assert {"socket.getaddrinfo", "socket.connect"} <= set(events(code, tmp_path))
