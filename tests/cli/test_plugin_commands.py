"""Commands that plugins bring: listed apart, loaded when they are called, and answered like ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distillctl.cli.app import COMMANDS

PLUGIN = """
from distillctl import CommandSpec, hookimpl

DISTILLCTL_API = 1

def command(name, function, **more):
    return CommandSpec(name=name, summary=f"Does what {name} does.", implementation=f"tools:{function}", **more)

@hookimpl
def register_command():
    return [
        command("greet", "greet", aliases=("hello",)), command("train", "greet"), command("odd", "odd"), command("number", "NUMBER"),
        command("broken", "missing"), command("evil", "greet", namespace="zoo"),
    ]
"""
TOOLS = '''
import typer
from typing import Annotated

from distillctl import DataError, RunError

def greet(
    name: Annotated[str, typer.Argument(help="Who is greeted.")],
    times: Annotated[int, typer.Option(help="How often.")] = 1,
) -> int | None:
    """Greets somebody.

    Examples:
        distillctl greet Ada
    """
    if name == "nobody":
        raise DataError("nobody is there", hint="name `somebody`")
    if name == "bug":
        raise ZeroDivisionError
    if name == "three":
        return 3
    for _ in range(times):
        typer.echo(f"hello {name}")

def odd(first: int | str) -> None:
    """Has a parameter that typer does not know."""

NUMBER = 3
'''


@pytest.fixture(scope="module")
def distillctl(tmp_path_factory):
    """Runs the command line in a process of its own, with a plugin of commands installed."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "plugin_tools.py").write_text(PLUGIN)
    (folder / "tools.py").write_text(TOOLS)
    info = folder / "package_tools-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: package-tools\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[distillctl]\ntools = plugin_tools\n")

    def run(*arguments, code=""):
        command = [sys.executable, *(("-c", code) if code else ("-m", "distillctl")), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(folder), "DISTILLCTL_PLUGINS": "tools"}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )

    return run


def test_they_stand_below_ours(distillctl):
    done = distillctl("--help")
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = done.stdout.split("\nPlugins:\n")
    assert all(re.search(rf"^  {name} ", ours, re.MULTILINE) for name in COMMANDS)
    listed = re.findall(r"^  (\w+) +(.*)$", theirs.partition("Examples:")[0], re.MULTILINE)
    assert listed == [(name, f"Does what {name} does.") for name in ("broken", "evil", "greet", "number", "odd")]


def test_without_any_there_is_no_heading(capsys, monkeypatch):
    from distillctl.cli import run

    monkeypatch.setenv("DISTILLCTL_PLUGINS", "")
    assert run(["--help"]) == 0
    assert "Plugins" not in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "loaded"), [(["--help"], False), (["plugins"], False), (["greet", "--help"], True)])
def test_they_are_loaded_when_they_are_called(distillctl, arguments, loaded):
    done = distillctl(
        code=f"import sys\nfrom distillctl.cli import run\nassert run({arguments}) == 0\nassert ('tools' in sys.modules) == {loaded}"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help(distillctl):
    done = distillctl("greet", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"Usage: distillctl greet \[OPTIONS\] \W*name", done.stdout, re.IGNORECASE)
    assert "Greets somebody." in done.stdout
    assert "--times" in done.stdout
    assert done.stdout.rstrip().endswith("Examples:\n    distillctl greet Ada")


@pytest.mark.parametrize("name", ["greet", "hello"])
def test_it_runs(distillctl, name):
    done = distillctl(name, "Ada", "--times", "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello Ada\nhello Ada\n", "")


@pytest.mark.parametrize("name", ["evil", "zoo/evil"])
def test_one_with_a_namespace(distillctl, name):
    assert distillctl(name, "Ada").stdout == "hello Ada\n"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["greet", "nobody"], 1, "error: nobody is there\n\nhint: name `somebody`\n"),
        (["greet", "three"], 3, ""),
        (["greet"], 2, "error: missing argument `"),
        (
            ["greet", "Ada", "--time", "2"],
            2,
            "error: no option is called `--time`\n\nhint: did you mean `--times`? `distillctl greet --help`",
        ),
        (["gret", "Ada"], 2, "error: no command is called `gret`\n\nhint: did you mean `greet`"),
        (["odd"], 2, "error: typer cannot make the command `odd` of `tools:odd`: "),
        (["number"], 2, "error: the implementation of the command `number` is not a function\n"),
        (["broken"], 2, "error: `broken` cannot be loaded from `tools:missing`: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_told_as_ours_is(distillctl, arguments, code, error):
    done = distillctl(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(error)
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback(distillctl):
    done = distillctl("greet", "bug")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_name_of_ours_is_refused(distillctl):
    done = distillctl("plugins", "--json")
    assert done.returncode == 0, done.stderr
    (plugin,) = (p for p in json.loads(done.stdout)["plugins"] if p["name"] == "tools")
    assert plugin["problem"] == "the command `train` is already provided by distillctl"
    assert plugin["provides"] == {"commands": ["broken", "zoo/evil", "greet", "number", "odd"]}
    assert "the same command again continues" in distillctl("train", "--help").stdout


def test_the_command_of_the_guide(tmp_path):
    guide = (Path(__file__).parents[2] / "plugins" / "README.md").read_text(encoding="utf-8").partition("\n### Commands\n")[2]
    package = tmp_path / "distillctl_size"
    package.mkdir()
    for name, block in zip(("plugin", "command"), guide.split("```py\n")[1:3], strict=True):
        (package / f"{name}.py").write_text(block.partition("```")[0], encoding="utf-8")
    info = tmp_path / "distillctl_size-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distillctl-size\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[distillctl]\nsize = distillctl_size.plugin\n")
    (tmp_path / "student.safetensors").write_bytes(b"12345")

    def size(run):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DISTILLCTL_PLUGINS": "size"}
        command = [sys.executable, "-m", "distillctl", "size", run]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    assert size(".") == (0, "5 bytes\n", "")
    assert size("nowhere") == (1, "", "error: `nowhere` has no deployed student\n\nhint: `distillctl train` finishes a run\n")
