"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="nkd",
    kind="logits",
    reads=("labels", "logits"),
    unit="rows",
    summary="distil the target class by cross-entropy and the renormalised other classes by another, each with its own weight",
    paper="Yang, Zeng, Li, Zhang, Yuan, Li 2023, arXiv 2303.13005",
    title="From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
    authors="Yang, Zhendong and Zeng, Ailing and Li, Zhe and Zhang, Tianke and Yuan, Chun and Li, Yu",
    venue="ICCV",
    implementation="distillctl_nkd.method:NKD",
    options="distillctl_nkd.options:NKDOptions",
    formula="mean_B [−p_t,y · log p_s,y − γ · T² · Σ_{i≠y} q_t,i · log q_s,i], p = softmax(z), q that of the logits other than y over T",
    takes_temperature=True,
    capturable=True,
    presets=(
        Preset(
            dataset="cifar100",
            values={"temperature": 3.0, "gamma": 3.5},
            source="the authors' CIFAR-100 setting, ResNet-34 → ResNet-18",
        ),
        Preset(dataset="imagenet", values={"temperature": 1.0, "gamma": 1.5}, source="the authors' ImageNet setting"),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Normalized knowledge distillation."""
    return SPEC
