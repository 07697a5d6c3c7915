"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="ctkd",
    kind="wrapper",
    reads=("logits",),
    summary="learn the temperature of another method against the student, harder from epoch to epoch",
    paper="Li, Li, Yang, Zhao, Song, Luo, Li, Yang 2023, arXiv 2211.16231",
    title="Curriculum Temperature for Knowledge Distillation",
    authors="Li, Zheng and Li, Xiang and Yang, Lingfeng and Zhao, Borui and Song, Renjie and Luo, Lei and Li, Jun and Yang, Jian",
    venue="AAAI",
    implementation="distillctl_ctkd.method:CTKD",
    options="distillctl_ctkd.options:CTKDOptions",
    formula="L_inner at τ = t_start + t_end · σ(θ), θ learnt or MLP(z_t, z_s); ∂L/∂θ times λ(e) = −½(1 − cos(π · min(e/loops, 1)))",
    weight=0.9,
    task_weight=0.1,
    capturable=True,
    inner="kd",
    presets=(
        Preset(
            dataset="imagenet",
            values={"weight": 1.0, "task_weight": 1.0, "loops": 5.0},
            source="the authors' ImageNet setting",
        ),
        Preset(inner="lskd", values={"weight": 9.0}, source="the authors of logit standardization"),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Curriculum temperature."""
    return SPEC
