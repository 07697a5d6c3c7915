"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="pefd",
    kind="features",
    summary="turn the mean of several projections of the student's pooled feature towards the teacher's",
    paper="Chen, Wang, Liu, Xu, de Hoog, Huang 2022, arXiv 2210.15274",
    title="Improved Feature Distillation via Projector Ensemble",
    authors="Chen, Yudong and Wang, Sen and Liu, Jiajun and Xu, Xuwei and de Hoog, Frank and Huang, Zi",
    venue="NeurIPS",
    implementation="distillctl_pefd.method:PEFD",
    options="distillctl_pefd.options:PEFDOptions",
    formula="mean_B (1 − cos(h, p_t)), h = 1/q · Σ_k ReLU(W_k·p_s + b_k)",
    weight=25.0,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Projector ensemble feature distillation."""
    return SPEC
