"""Options of `mimic`."""

from __future__ import annotations

from distillctl import Options


class MimicOptions(Options):
    """Options of `mimic`."""

    centred: bool = False
    """Subtract from each sample's logits their mean: adding a number to all of them changes no probability."""
