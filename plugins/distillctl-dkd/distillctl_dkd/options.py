"""Options of `dkd`."""

from __future__ import annotations

from distillctl import Factor, Options, Temperature


class DKDOptions(Options):
    """Options of `dkd`."""

    temperature: Temperature = 4.0
    """Divides the logits of both sides."""
    alpha: Factor = 1.0
    """Factor of the part on the target class."""
    beta: Factor = 8.0
    """Factor of the part on all other classes."""
