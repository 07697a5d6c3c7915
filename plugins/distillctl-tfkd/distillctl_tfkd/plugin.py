"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
_PAPER = "Yuan, Tay, Li, Wang, Feng 2020, arXiv 1909.11723"
_TITLE = "Revisiting Knowledge Distillation via Label Smoothing Regularization"
_AUTHORS = "Yuan, Li and Tay, Francis E. H. and Li, Guilin and Wang, Tao and Feng, Jiashi"

TFKD = MethodSpec(
    name="tfkd",
    kind="self",
    reads=("labels", "logits"),
    unit="rows",
    summary="learn from a virtual teacher that is always right and nearly indifferent to all other classes",
    paper=_PAPER,
    title=_TITLE,
    authors=_AUTHORS,
    venue="CVPR",
    implementation="distillctl_tfkd.method:TfKD",
    options="distillctl_tfkd.options:TfKDOptions",
    formula="T² · mean_B KL(softmax(u/τ) ‖ softmax(z_s/T)), u_y = a, u_k = (1 − a)/(C − 1) for the other classes",
    weight=0.1,
    task_weight=0.9,
    needs_teacher=False,
    capturable=True,
)

TFKD_SELF = MethodSpec(
    name="tfkd-self",
    kind="logits",
    reads=("logits",),
    unit="rows",
    summary="learn from an earlier training of the same network",
    paper=_PAPER,
    title=_TITLE,
    authors=_AUTHORS,
    venue="CVPR",
    implementation="distillctl_tfkd.method:TfKDSelf",
    options="distillctl_tfkd.options:TfKDSelfOptions",
    formula="T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T)), z_t from a network of the student's kind",
    weight=0.475,
    task_weight=0.05,
    takes_temperature=True,
    capturable=True,
)


@hookimpl
def register_method() -> list[MethodSpec]:
    """Teacher-free distillation, in both forms."""
    return [TFKD, TFKD_SELF]
