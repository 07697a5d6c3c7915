"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="byot",
    kind="self",
    reads=("labels", "logits"),
    mixed="soft",
    summary="give every stage an exit of its own, which learns from the labels and from the end of the same network",
    paper="Zhang, Song, Gao, Chen, Bao, Ma 2019, arXiv 1905.08094",
    title="Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation",
    authors="Zhang, Linfeng and Song, Jiebo and Gao, Anni and Chen, Jingwei and Bao, Chenglong and Ma, Kaisheng",
    venue="ICCV",
    implementation="distillctl_byot.method:BYOT",
    options="distillctl_byot.options:BYOTOptions",
    formula="(1 − α) · Σ_k CE(z_k, y) + α · T² · Σ_k H(softmax(z_s/T), softmax(z_k/T)) + β · Σ_k Σ_B ‖M_k ⊙ (F_k − F_s)‖²",
    task_weight=0.9,
    needs_teacher=False,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Self-distillation with several exits."""
    return SPEC
