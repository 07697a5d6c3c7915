"""Declares `ofd`."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="ofd",
    kind="features",
    summary="fit the teacher's maps before their ReLU, raised to a negative margin, where that matters to the ReLU",
    paper="Heo, Kim, Yun, Park, Kwak, Choi 2019, arXiv 1904.01866",
    title="A Comprehensive Overhaul of Feature Distillation",
    authors="Heo, Byeongho and Kim, Jeesoo and Yun, Sangdoo and Park, Hyojin and Kwak, Nojun and Choi, Jin Young",
    venue="ICCV",
    implementation="distillctl_ofd.method:OFD",
    options="distillctl_ofd.options:OFDOptions",
    formula="Σ_i 2^(i−n) · mean_B Σ_{c,h,w} (s' − t')² · 1[s' > t' or t > 0], t' = max(t, m_c), s' = BN(conv(s)), i = 1 … n",
    weight=1e-3,
    task_weight=1.0,
    capturable=True,
    presets=(Preset(dataset="imagenet", values={"weight": 1e-4}, source="mdistiller's setting for resnet50 → mobilenet_v1"),),
)


@hookimpl
def register_method() -> MethodSpec:
    """Overhaul of feature distillation."""
    return SPEC
