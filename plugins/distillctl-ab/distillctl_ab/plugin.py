"""Declares `ab`."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="ab",
    kind="features",
    summary="first teach the student's body which of the teacher's neurons are active, then train it on the labels",
    paper="Heo, Lee, Yun, Choi 2019, arXiv 1811.03233",
    title="Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
    authors="Heo, Byeongho and Lee, Minsik and Yun, Sangdoo and Choi, Jin Young",
    venue="AAAI",
    implementation="distillctl_ab.method:AB",
    options="distillctl_ab.options:ABOptions",
    formula="3/1000 · Σ_i 2^(i−n) · mean_B Σ_{c,h,w} (t > 0 ? max(m − s', 0)² : max(m + s', 0)²), s' = R(s), i = 1 … n; in phase `init`",
    weight=1.0,
    task_weight=1.0,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Activation boundaries."""
    return SPEC
