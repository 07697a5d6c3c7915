"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="dist",
    kind="logits",
    reads=("logits",),
    unit="rows",
    summary="correlate the probabilities of student and teacher, within each sample and within each class",
    paper="Huang, You, Wang, Qian, Xu 2022, arXiv 2205.10536",
    title="Knowledge Distillation from A Stronger Teacher",
    authors="Huang, Tao and You, Shan and Wang, Fei and Qian, Chen and Xu, Chang",
    venue="NeurIPS",
    implementation="distillctl_dist.method:DIST",
    options="distillctl_dist.options:DISTOptions",
    formula="T² · [β · (1 − mean_B ρ(Y_s[i,:], Y_t[i,:])) + γ · (1 − mean_C ρ(Y_s[:,j], Y_t[:,j]))], Y = softmax(z/T), ρ Pearson's",
    weight=2.0,
    compares_images=True,
    takes_temperature=True,
    capturable=True,
    presets=(Preset(dataset="cifar100", values={"temperature": 4.0}, source="the authors' CIFAR-100 setting"),),
)


@hookimpl
def register_method() -> MethodSpec:
    """Distillation by correlations."""
    return SPEC
