"""`new` writes packages that install, and whose tests pass as they are."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.cli.new import KINDS

NAMES = {"method": "my-loss", "model": "tiny_net", "dataset": "arrays2"}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_package(inside: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = NAMES[kind]
    assert run(["new", kind, name]) == 0
    assert capsys.readouterr().out.endswith(f"next: pip install -e distillctl-{name} && python -m pytest distillctl-{name}\n")
    folder, module = inside / f"distillctl-{name}", f"distillctl_{name.replace('-', '_')}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["distillctl"] == {module: f"{module}.plugin"}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        text = path.read_text()
        assert "@NAME@" not in text
        assert "@" not in text.replace("@hookimpl", ""), path
        if path.suffix == ".py":
            compile(text, str(path), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_and_it_is_formatted(inside: Path, kind: str) -> None:
    assert run(["new", kind, NAMES[kind]]) == 0
    folder = inside / f"distillctl-{NAMES[kind]}"
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=500, check=False, env={**_environment(), "PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--line-length", "140", "."], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ruff.returncode == 0, ruff.stdout


def _environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["task", "mine"], "`task` cannot be made"),
        (["method", "My Loss"], "`My Loss` is not a name"),
        (["method", "../up"], "`../up` is not a name"),
        (["method", "class"], "`class` is not a name"),
        (["method", "kd"], "`kd` is taken"),
        (["model", "resnet8"], "`resnet8` is taken"),
        (["dataset", "digits"], "`digits` is taken"),
        (["method", "dkd2", "--out", "there"], "`there` is there already"),
        (["method", "dkd2", "--out", "file/x"], "cannot be written: not a directory"),
    ],
)
def test_mistakes(inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    (inside / "there").mkdir()
    (inside / "file").touch()
    assert run(["new", *arguments]) in (2, 3)
    assert words in capsys.readouterr().err
    assert sorted(p.name for p in inside.iterdir()) == ["file", "there"]
