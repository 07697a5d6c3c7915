"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="cc",
    kind="relations",
    summary="make the samples of a batch correlate with each other as they do for the teacher",
    paper="Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang 2019, arXiv 1904.01802",
    title="Correlation Congruence for Knowledge Distillation",
    authors="Peng, Baoyun and Jin, Xiao and Liu, Jiaheng and Zhou, Shunfeng and Wu, Yichao and Liu, Yu and Li,"
    " Dongsheng and Zhang, Zhaoning",
    venue="ICCV",
    implementation="distillctl_cc.method:CC",
    options="distillctl_cc.options:CCOptions",
    formula="mean over i < B of Σ_c δ_i,c · δ_{i+1},c, δ = |W_s·p_s + b_s − W_t·p_t − b_t|; or 1/B² · ‖K_s − K_t‖²_F",
    weight=0.02,
    compares_images=True,
    capturable=True,
    presets=(Preset(when={"variant": "kernel"}, values={"weight": 100.0}, source="our choice; no published weight is known"),),
)


@hookimpl
def register_method() -> MethodSpec:
    """Correlation congruence."""
    return SPEC
