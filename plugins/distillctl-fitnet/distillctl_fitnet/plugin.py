"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="fitnet",
    kind="features",
    summary="regress one of the teacher's intermediate feature maps from the student's",
    paper="Romero, Ballas, Kahou, Chassang, Gatta, Bengio 2015, arXiv 1412.6550",
    title="FitNets: Hints for Thin Deep Nets",
    authors="Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo and Bengio, Yoshua",
    venue="ICLR",
    implementation="distillctl_fitnet.method:FitNet",
    options="distillctl_fitnet.options:FitNetOptions",
    formula="mean over all elements of (R(f_s) − f_t)², R = convolution, batch normalisation and, where f_t ≥ 0, ReLU",
    weight=100.0,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """FitNet's hints."""
    return SPEC
