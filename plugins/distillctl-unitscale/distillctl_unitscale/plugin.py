"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1

SPEC = MethodSpec(
    name="unit-scale",
    kind="wrapper",
    summary="divide each of the teacher's maps by its size before another method compares it",
    # Of this paper is that scales are measured on the first batch; the rest is ours.
    paper="Salimans, Kingma 2016, arXiv 1602.07868",
    title="Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
    authors="Salimans, Tim and Kingma, Diederik P.",
    implementation="distillctl_unitscale.method:UnitScale",
    formula="L_inner with t/r for every map t of the teacher; r = √(mean t²) over the first batch",
    weight=1.0,
    task_weight=1.0,
    capturable=True,
    inner="reviewkd",
    inner_kinds=("features",),
)


@hookimpl
def register_method() -> MethodSpec:
    """The teacher's maps at unit scale."""
    return SPEC
