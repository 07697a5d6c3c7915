"""The example of the guide for plugin authors is a real package: it is built, installed, listed, tested and trained with.

These are the commands of the guide, in a scratch folder:

    uv pip install -e plugins/example
    distillctl show mimic
    distillctl train profiles/quickstart.toml --method mimic
    python -m pytest plugins/example
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def uv():
    """How uv is called: as the one that started these tests, from PATH, or as a module."""
    program = os.environ.get("UV") or shutil.which("uv")
    if program:
        return [program]
    assert find_spec("uv"), "uv is needed to install the example: pip install uv"
    return [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs Python where the example is installed, in a folder with a copy of its sources and the profiles."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "plugins" / "example", folder / "installed"
    shutil.copytree(ROOT / "plugins" / "example", source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    install = [*uv(), "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(target), str(source)]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

    def python(*arguments, first=()):
        path = os.pathsep.join(map(str, (*first, target)))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)

    python.source = source
    python.folder = folder
    return python


def test_it_is_not_there_before():
    """What the other tests see comes from the installed package."""
    done = subprocess.run([sys.executable, "-m", "distillctl", "show", "mimic"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 or find_spec("distillctl_example")


def test_it_is_listed_and_shown(installed):
    done = installed("-m", "distillctl", "list-methods", "--json")
    assert done.returncode == 0, done.stderr
    assert '"name": "mimic"' in done.stdout
    assert '"package": "distillctl-example"' in done.stdout
    shown = installed("-m", "distillctl", "show", "mimic")
    assert shown.returncode == 0, shown.stderr
    assert "½ · mean_B ‖z_s − z_t‖²" in shown.stdout
    assert "centred" in shown.stdout


def test_it_trains(installed):
    """Teacher and student for an epoch each, and its term in the record beside the label loss."""
    limits = ("train.epochs=1", "dataset.limit=100")
    cut = (*limits, *(f"teacher.overrides.{limit}" for limit in limits), "teacher.allow_untrained=true", "method.centred=true")
    settings = [word for value in cut for word in ("--set", value)]
    done = installed("-m", "distillctl", "train", "profiles/quickstart.toml", "--method", "mimic", *settings, "--out", "runs/mimic")
    assert done.returncode == 0, done.stderr
    run = installed.folder / "runs" / "mimic"
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(record["terms"]) == {"task", "mimic"}
    assert record["terms"]["mimic"] > 0
    assert (run / "student.safetensors").is_file()


def test_its_tests_pass(installed):
    """The README's table of options is looked for beside the sources, as in an editable installation."""
    done = installed("-m", "pytest", "plugins/example", "-q", "-p", "no:cacheprovider", "-W", "error", first=(installed.source,))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
