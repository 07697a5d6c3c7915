"""Makes Python on Linux lack what it lacks on Windows, in every process that has this folder in `PYTHONPATH`.

    PYTHONPATH=tests/elsewhere uv run pytest

Modules, signals and functions of POSIX are gone, and processes are started anew instead of being forked, as on Windows and macOS.
What belongs to no module of Python (how paths look, files that cannot be replaced while they are open) stays as it is here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings

for _module in ("fcntl", "resource", "grp", "pwd"):
    sys.modules[_module] = None  # type: ignore[assignment]  # an import then says that there is none
for _name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
    delattr(signal, _name)
for _name in ("lockf", "pread", "pwrite", "geteuid", "mkfifo", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "sched_getaffinity"):
    delattr(os, _name)
multiprocessing.set_start_method("spawn")
warnings.filterwarnings("ignore", "only soft file lock is available")  # Windows has real ones
