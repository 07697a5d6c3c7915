"""A part of the suite on a Python that lacks what Windows lacks, and that starts every process anew, as Windows and macOS do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HIDDEN = {**os.environ, "PYTHONPATH": str(HERE / "elsewhere")}


def test_python_lacks_what_it_should_lack() -> None:
    text = "import multiprocessing, os, signal; print(hasattr(os, 'lockf'), hasattr(signal, 'SIGUSR1'), multiprocessing.get_start_method())"
    done = subprocess.run([sys.executable, "-c", text], env=HIDDEN, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False", "spawn"]
    done = subprocess.run([sys.executable, "-c", "import fcntl"], env=HIDDEN, capture_output=True, text=True, timeout=60, check=False)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.slow
def test_a_part_of_the_suite() -> None:
    """The rest takes minutes: `CONTRIBUTING.md` says how it is run."""
    loader = "data/test_stream_loader.py"
    names = (
        "rundir/test_lock.py",
        f"{loader}::test_any_epoch_can_be_had_first",
        f"{loader}::test_a_worker_that_dies_ends_the_run_with_a_reason",
    )
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *(str(HERE / name) for name in names)]
    done = subprocess.run(command, env=HIDDEN, cwd=HERE.parent, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
