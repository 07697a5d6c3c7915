"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="pkt",
    kind="relations",
    summary="match the probabilities with which a sample would choose the other samples of a batch as its neighbours",
    paper="Passalis, Tefas 2018, arXiv 1803.10837",
    title="Learning Deep Representations with Probabilistic Knowledge Transfer",
    authors="Passalis, Nikolaos and Tefas, Anastasios",
    venue="ECCV",
    implementation="distillctl_pkt.method:PKT",
    options="distillctl_pkt.options:PKTOptions",
    formula="mean over B² of P_t · log((P_t + eps)/(P_s + eps)), P = (cos(p_i, p_j) + 1)/2 with rows of sum 1",
    weight=30000.0,
    compares_images=True,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Probabilistic knowledge transfer."""
    return SPEC
