"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="cwd",
    kind="features",
    summary="match at which positions each channel is strong: a softmax over the positions of a channel",
    paper="Shu, Liu, Gao, Yan, Shen 2021, arXiv 2011.13256",
    title="Channel-wise Knowledge Distillation for Dense Prediction",
    authors="Shu, Changyong and Liu, Yifan and Gao, Jianfei and Yan, Zheng and Shen, Chunhua",
    venue="ICCV",
    implementation="distillctl_cwd.method:CWD",
    options="distillctl_cwd.options:CWDOptions",
    formula="Σ_stages T² · mean_{B,C} KL(φ_t ‖ φ_s), φ = softmax over the positions of a channel's activations / T",
    weight=10.0,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Channel-wise distillation."""
    return SPEC
