"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="pseudo",
    kind="labels",
    summary="learn what the teacher is sure of as if it were labels: classes of images, or boxes of a detector",
    paper="Lee 2013; threshold: Sohn et al. 2020, arXiv 2001.07685",
    title="Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks",
    authors="Lee, Dong-Hyun",
    venue="ICML Workshop on Challenges in Representation Learning",
    implementation="distillctl_pseudo.method:Pseudo",
    options="distillctl_pseudo.options:PseudoOptions",
    formula="label loss against the teacher's answers of score s ≥ threshold, each with the weight s",
    mixed="refused",
    relabels=True,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Pseudo labels."""
    return SPEC
