"""What a shell is offered when somebody presses the tab key, in the words in which shells ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.cli.app import COMMANDS
from distillctl.plugin.registry import Registry

PROGRAM = Path(sys.executable).with_name("distillctl")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one profile, and a folder that is not a run."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("quickstart-11111111", "quickstart-22222222", "jobs")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        if name != "jobs":
            (folder / "run.json").write_text("{}")
            os.utime(folder / "run.json", (number, number))


def offered(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str = "bash") -> list[str]:
    """What is printed for a line whose last word, after its last space, is to be completed."""
    monkeypatch.setenv("_DISTILLCTL_COMPLETE", f"complete_{shell}")
    if shell == "bash":
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    else:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit) as caught:
        run([])
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return str(out).split("\n")[:-1] if out.strip() else []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("distillctl tra", ["train", "tracin"]),
        ("distillctl list-m", ["list-methods", "list-models"]),
        ("distillctl train --d", ["--device", "--dry-run"]),
        ("distillctl train a.toml --method dk", ["dkd"]),
        ("distillctl check a.toml --method=soft", ["soft-target"]),
        ("distillctl show adam", ["adamw"]),
        ("distillctl show cifar/vgg1", ["cifar/vgg11", "cifar/vgg13", "cifar/vgg16", "cifar/vgg19"]),
        ("distillctl list-models --package distillctl-di", ["distillctl-digits", "distillctl-dist"]),
        ("distillctl eval runs/", ["runs/quickstart-22222222", "runs/quickstart-11111111"]),
        ("distillctl eval runs/quickstart-1", ["runs/quickstart-11111111"]),
        ("distillctl train a.toml --teacher r", ["runs/quickstart-22222222", "runs/quickstart-11111111"]),
        ("distillctl train pro", []),  # then the shell offers files
        ("distillctl nothing-like-it --d", []),
    ],
)
def test_names_are_completed(
    words: str, expected: list[str], runs: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(words, monkeypatch, capsys) == expected


def test_all_commands_are_offered_with_those_of_plugins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from distillctl import CommandSpec, hookimpl
    from distillctl.plugin.catalog import Plugin

    class Made:
        @hookimpl
        def register_command(self) -> CommandSpec:
            return CommandSpec(name="survey", summary="Survey runs.", implementation="nowhere:nothing")

    registry = Registry()
    registry.add(Plugin("made", "package-made", "1"), Made)
    monkeypatch.setattr(Registry, "load", staticmethod(lambda environment=None, own_commands=(): registry))
    assert sorted(offered("distillctl ", monkeypatch, capsys)) == sorted([*COMMANDS, "survey"])


@pytest.mark.parametrize(("shell", "expected"), [("fish", "dkd\tdistil the target class"), ("zsh", '"dkd":"distil the target class')])
def test_other_shells_are_told_what_a_name_is(
    shell: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = offered("distillctl train a.toml --method dk", monkeypatch, capsys, shell)
    assert expected in line


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script_that_is_printed(tmp_path: Path) -> None:
    """The script is installed in an empty home, and asked as bash asks it."""
    ask = (
        '"$0" --install-completion >installed && source .bashrc && COMP_WORDS=(distillctl train a.toml --method nk) && COMP_CWORD=4 '
        '&& _distillctl_completion "$0" && echo "${COMPREPLY[*]}" && complete -p distillctl'
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, str(PROGRAM)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["nkd", "complete -o default -F _distillctl_completion distillctl"]
    assert (tmp_path / "installed").read_text().startswith("bash completion installed in")


@pytest.mark.parametrize("words", ["distillctl train --method ", "distillctl eval "])
def test_a_shell_that_asks_does_not_wait_for_torch(words: str) -> None:
    code = (
        "import sys\nfrom distillctl.cli import run\n"
        "try: run([])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'rich', 'toml') if m in sys.modules])"
    )
    environment = {**os.environ, "_DISTILLCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
