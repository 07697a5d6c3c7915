"""Options of `dist`."""

from __future__ import annotations

from distillctl import Factor, Options, Temperature


class DISTOptions(Options):
    """Options of `dist`."""

    temperature: Temperature = 1.0
    """Divides the logits of both sides."""
    beta: Factor = 1.0
    """Factor of `inter`, which correlates the classes of each sample."""
    gamma: Factor = 1.0
    """Factor of `intra`, which correlates the samples of each class."""
