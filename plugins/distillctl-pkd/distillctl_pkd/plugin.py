"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="pkd",
    kind="features",
    summary="correlate each channel of the student's maps with the teacher's, whatever their means and spreads",
    paper="Cao, Zhang, Gao, Cheng, Cheng, Cheng 2022, arXiv 2207.02039",
    title="PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
    authors="Cao, Weihan and Zhang, Yifan and Gao, Jianfei and Cheng, Anda and Cheng, Ke and Cheng, Jian",
    venue="NeurIPS",
    implementation="distillctl_pkd.method:PKD",
    options="distillctl_pkd.options:PKDOptions",
    formula="Σ_stages ½ · mean over all elements of (S(f_s) − S(f_t))², S = each channel standardised over the batch",
    weight=10.0,
    compares_images=True,
    remembers_images=True,  # not a memory: one image has positions of its own to be compared
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Distillation by the correlation of channels."""
    return SPEC
