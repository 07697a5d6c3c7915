"""Measures the teeth of the suite: changes one line as a careless hand would, and looks whether the named tests fail.

    python tests/mutants/run.py                   all mutants
    python tests/mutants/run.py --sample 12       some of them, by the day of the year
    python tests/mutants/run.py ema schedule      those whose name has one of these words

A mutant that no test kills is a missing test, not a fault of the mutant. Each is tried on a copy; nothing here is changed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from listed import MUTANTS, Mutant  # noqa: E402 - beside this file

_SECONDS = 300  # for the tests of one mutant
_TARGET = 0.97
_NO_TEST = 5
"""What pytest ends with where nothing was to be run."""


def copied(folder: Path) -> None:
    """All that the tests need, in a folder."""
    for part in ("distillctl", "plugins", "tests", "profiles"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in ("pyproject.toml", "conftest.py", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)


def killed(mutant: Mutant, folder: Path) -> bool:
    """Whether a test fails on the mutant.

    Raises:
        ValueError: the line is not there any more, or more than once.
    """
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"`{mutant.old}` stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        places = [str(folder), *(str(place) for place in sorted((folder / "plugins").glob("distillctl-*")))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *mutant.tests.split()]
        codes = []
        for which in ("not slow", "slow"):  # the slow ones where no other kills it
            try:
                done = subprocess.run(
                    [*command, "-m", which], cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                return True  # it hangs, which somebody would see
            if done.returncode not in (0, 1, _NO_TEST):
                raise ValueError(f"pytest ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-500:]}")
            codes.append(done.returncode)
            if done.returncode == 1:
                return True
        if codes == [_NO_TEST, _NO_TEST]:
            raise ValueError(f"`{mutant.tests}` has no test")
        return False
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--sample", type=int, default=0)
    given = parser.parse_args()
    chosen = [m for m in MUTANTS if not given.words or any(word in m.name for word in given.words)]
    if given.sample:
        chosen = random.Random(datetime.date.today().toordinal()).sample(chosen, min(given.sample, len(chosen)))
    survivors, started = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distillctl-mutants-") as place:
        folder = Path(place)
        copied(folder)
        for mutant in chosen:
            dead = killed(mutant, folder)
            print(f"{'killed  ' if dead else 'SURVIVES'} {mutant.name}", flush=True)
            if not dead:
                survivors.append(mutant.name)
    dead_count = len(chosen) - len(survivors)
    print(f"{dead_count} of {len(chosen)} killed in {time.monotonic() - started:.0f} s; survivors: {', '.join(survivors) or 'none'}")
    return 0 if dead_count >= _TARGET * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
