"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="sp",
    kind="relations",
    summary="make the samples of a batch as similar to each other as they are for the teacher",
    paper="Tung, Mori 2019, arXiv 1907.09682",
    title="Similarity-Preserving Knowledge Distillation",
    authors="Tung, Frederick and Mori, Greg",
    venue="ICCV",
    implementation="distillctl_sp.method:SP",
    options="distillctl_sp.options:SPOptions",
    formula="Σ_stages 1/B² · ‖N(F_t·F_tᵀ) − N(F_s·F_sᵀ)‖²_F, F (B, C·H·W), N = rows of length 1",
    weight=3000.0,
    compares_images=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Similarity-preserving distillation."""
    return SPEC
