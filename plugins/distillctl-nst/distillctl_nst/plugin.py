"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="nst",
    kind="features",
    summary="match the set of spatial patterns that the channels of each stage respond to",
    paper="Huang, Wang 2017, arXiv 1707.01219",
    title="Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
    authors="Huang, Zehao and Wang, Naiyan",
    implementation="distillctl_nst.method:NST",
    options="distillctl_nst.options:NSTOptions",
    formula="Σ_stages mean_B [mean_{i,i'} k(s_i, s_i') + mean_{j,j'} k(t_j, t_j') − 2 mean_{i,j} k(s_i, t_j)], k(a, b) = (a·b)²",
    weight=50.0,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Neuron selectivity transfer."""
    return SPEC
