"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="at",
    kind="features",
    summary="match where the stages look: maps of activation strength, summed over the channels",
    paper="Zagoruyko, Komodakis 2017, arXiv 1612.03928",
    title="Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer",
    authors="Zagoruyko, Sergey and Komodakis, Nikos",
    venue="ICLR",
    implementation="distillctl_at.method:AT",
    options="distillctl_at.options:ATOptions",
    formula="Σ_stages mean_{B,h,w} (A_s − A_t)², A = normalise(mean_c |f|^p)",
    weight=1000.0,
    presets=(
        Preset(
            when={"mode": "paper"},
            values={"weight": 5.0},
            source="our choice, of the size of the other mode's term; none is published",
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Attention transfer."""
    return SPEC
