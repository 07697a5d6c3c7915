"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="rdrop",
    kind="self",
    reads=("logits",),
    summary="run the student twice with different dropout and make both answers agree",
    paper="Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu 2021, arXiv 2106.14448",
    title="R-Drop: Regularized Dropout for Neural Networks",
    authors="Liang, Xiaobo and Wu, Lijun and Li, Juntao and Wang, Yue and Meng, Qi and Qin, Tao and Chen, Wei"
    " and Zhang, Min and Liu, Tie-Yan",
    venue="NeurIPS",
    implementation="distillctl_rdrop.method:RDrop",
    options="distillctl_rdrop.options:RDropOptions",
    formula="mean_B ½ · (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)), p₁, p₂ = softmax(z) of two passes",
    weight=0.3,
    needs_teacher=False,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Regularised dropout."""
    return SPEC
