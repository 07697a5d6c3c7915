"""Signals that ask a run to stop, and the exit codes that answer them."""

from __future__ import annotations

import signal

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGBREAK")  # the last two: of batch systems, and of Windows' consoles
    if hasattr(signal, name)
)


def exit_code(number: int) -> int:
    """130 for an interrupt from the keyboard, 143 for all others: a batch system that warns of its end asks to terminate."""
    return 130 if number == signal.SIGINT else 143
