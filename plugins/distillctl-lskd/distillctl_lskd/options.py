"""Options of `lskd`."""

from __future__ import annotations

from distillctl import Options, Temperature


class LSKDOptions(Options):
    """Options of `lskd`."""

    temperature: Temperature | None = None
    """Takes the place of the inner method's temperature; unset, it is 2, or the learnt one where the inner method learns its own."""
