"""The researcher's day of the README, command by command, in one folder, with fewer images and epochs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CUT = {
    "epochs = 12": "epochs = 2\nkeep_every = 1",
    "seeds = [0, 1, 2]": "seeds = [0, 1]",
    'grid.method = ["kd", "dkd", "at", "mgd"]': 'grid.method = ["kd", "mgd"]',
    "split_seed = 0 ": "limit = 200\nsplit_seed = 0 ",
    'profile = "digits_teacher.toml"': 'profile = "digits_teacher.toml"\noverrides = { "train.epochs" = 4 }\nallow_untrained = true',
}


def commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- day -->")[1]
    block = re.match(r"\s*```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


@pytest.mark.slow
def test_the_day(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    profile = tmp_path / "profiles" / "digits_methods.toml"
    text = profile.read_text(encoding="utf-8")
    for old, new in CUT.items():
        assert old in text
        text = text.replace(old, new)
    profile.write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    found = commands()
    assert len(found) == 10
    said = {}
    with contextlib.chdir(tmp_path):
        for name, *arguments in found:
            assert name == "distillctl"
            whole = [str(path) for one in arguments for path in (sorted(Path().glob(one)) if "*" in one else [one])]  # as a shell does
            done = subprocess.run(
                [sys.executable, "-m", "distillctl", *whole], capture_output=True, text=True, timeout=400, check=False, env=environment
            )
            assert done.returncode == 0, (whole, done.stderr[-2000:])
            said[" ".join(arguments)] = done.stdout
    assert max(len(line) for line in said["compare runs/day"].splitlines()) <= 80
    assert "nothing differs" in said["compare runs/day"]
    assert "\\begin{tabular}" in said["compare runs/day --format latex"]
    assert said["runs runs/day --sort test"].splitlines()[-1] == "6 runs"
    assert (tmp_path / "runs" / "day" / "report.html").is_file()
    assert list((tmp_path / "runs" / "day" / "plots").glob("*.svg"))
