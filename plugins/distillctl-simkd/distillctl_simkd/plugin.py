"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="simkd",
    kind="features",
    summary="give the student the teacher's classifier, and learn to project its last map onto the teacher's",
    paper="Chen, Mei, Zhang, Wang, Feng, Chen 2022, arXiv 2203.14001",
    title="Knowledge Distillation with the Reused Teacher Classifier",
    authors="Chen, Defang and Mei, Jian-Ping and Zhang, Hailin and Wang, Can and Feng, Yan and Chen, Chun",
    venue="CVPR",
    implementation="distillctl_simkd.method:SimKD",
    options="distillctl_simkd.options:SimKDOptions",
    formula="mean (P(f_s) − f_t)²; the student's logits are W_t · mean_hw P(f_s) + b_t",
    task_weight=0.0,
    gives_head=True,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """The reused teacher classifier."""
    return SPEC
