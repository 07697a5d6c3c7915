"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="kdsvd",
    kind="features",
    summary="match how the main singular vectors of consecutive stages relate to each other",
    paper="Lee, Kim, Song 2018, arXiv 1807.06819",
    title="Self-supervised Knowledge Distillation Using Singular Value Decomposition",
    authors="Lee, Seung Hyun and Kim, Dae Ha and Song, Byung Cheol",
    venue="ECCV",
    implementation="distillctl_kdsvd.method:KDSVD",
    options="distillctl_kdsvd.options:KDSVDOptions",
    formula="Σ_stages mean_B Σ_{i,j,k} (R_s − R_t)², R = exp(−(v_ik − u_jk)² / 8), v, u singular vectors of a stage and the one before",
)


@hookimpl
def register_method() -> MethodSpec:
    """Distillation of singular vectors."""
    return SPEC
