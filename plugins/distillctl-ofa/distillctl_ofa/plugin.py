"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="ofa",
    kind="features",
    reads=("labels", "logits"),
    summary="give every stage of the student a classifier that learns the teacher's probabilities, the target class enhanced",
    paper="Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, arXiv 2310.19444",
    title="One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
    authors="Hao, Zhiwei and Guo, Jianyuan and Han, Kai and Tang, Yehui and Hu, Han and Wang, Yunhe and Xu, Chang",
    venue="NeurIPS",
    implementation="distillctl_ofa.method:OFA",
    options="distillctl_ofa.options:OFAOptions",
    formula="ℓ(z_s) + Σ_k ℓ(branch_k(f_s,k)), ℓ(z) = mean_B −Σ_c [(p_t,c + 1[c = y])^ε − 1[c = y]] · log softmax(z)_c",
    capturable=True,
    presets=(
        Preset(
            dataset="imagenet",
            teacher="deit_tiny*",
            student="resnet18",
            values={"eps": 1.5},
            source="the authors' command for DeiT-T → ResNet-18",
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """One-for-all distillation."""
    return SPEC
