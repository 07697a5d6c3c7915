"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="vid",
    kind="features",
    summary="predict the teacher's feature maps from the student's, with a learnt variance for each channel",
    paper="Ahn, Hu, Damianou, Lawrence, Dai 2019, arXiv 1904.05835",
    title="Variational Information Distillation for Knowledge Transfer",
    authors="Ahn, Sungsoo and Hu, Shell Xu and Damianou, Andreas and Lawrence, Neil D. and Dai, Zhenwen",
    venue="CVPR",
    implementation="distillctl_vid.method:VID",
    options="distillctl_vid.options:VIDOptions",
    formula="Σ_stages mean over all elements of ½((R(f_s) − f_t)²/σ² + log σ²), σ²_c = softplus(ρ_c) + eps",
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Variational information distillation."""
    return SPEC
