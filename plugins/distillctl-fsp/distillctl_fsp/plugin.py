"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="fsp",
    kind="features",
    summary="match the products of neighbouring stages, before the student learns from labels",
    paper="Yim, Joo, Bae, Kim 2017",
    title="A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
    authors="Yim, Junho and Joo, Donggyu and Bae, Jihoon and Kim, Junmo",
    venue="CVPR",
    implementation="distillctl_fsp.method:FSP",
    options="distillctl_fsp.options:FSPOptions",
    formula="Σ_i mean (G_i(s) − G_i(t))², G_i = f_{i+1} f_iᵀ / (H·W) for neighbouring stages i and i + 1",
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Flow of solution procedure."""
    return SPEC
