"""What this package declares to distillctl. Imports no torch, so that listing methods stays fast."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="mimic",
    kind="logits",
    reads=("logits",),
    unit="rows",
    summary="match the teacher's logits by squared error",
    paper="Ba, Caruana 2014, arXiv 1312.6184",
    title="Do Deep Nets Really Need to be Deep?",
    authors="Ba, Lei Jimmy and Caruana, Rich",
    venue="NeurIPS",
    implementation="distillctl_example.method:Mimic",
    options="distillctl_example.options:MimicOptions",
    formula="½ · mean_B ‖z_s − z_t‖²",
)


@hookimpl
def register_method() -> MethodSpec:
    """Regression on logits."""
    return SPEC
