"""Options of `nkd`."""

from __future__ import annotations

from distillctl import Factor, Options, Temperature


class NKDOptions(Options):
    """Options of `nkd`."""

    temperature: Temperature = 1.0
    """Divides the logits of both sides in the part on the other classes; the part on the target class has none."""
    gamma: Factor = 1.5
    """Factor of the part on all classes but the target."""
