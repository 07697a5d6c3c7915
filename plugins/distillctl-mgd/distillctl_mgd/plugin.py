"""Declares `mgd`."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_method() -> MethodSpec:
    """Masked generative distillation."""
    return MethodSpec(
        name="mgd",
        kind="features",
        summary="regenerate the teacher's last feature map from the student's masked one",
        paper="Yang, Li, Shao, Shi, Yuan, Yuan 2022, arXiv 2205.01529",
        title="Masked Generative Distillation",
        authors="Yang, Zhendong and Li, Zhe and Shao, Mingqi and Shi, Dachuan and Yuan, Zehuan and Yuan, Chun",
        venue="ECCV",
        implementation="distillctl_mgd.method:MGD",
        options="distillctl_mgd.options:MGDOptions",
        formula="mean_B Σ_{c,h,w} (G(M ⊙ align(f_s)) − f_t)²",
        weight=7e-5,
        task_weight=1.0,
        presets=(
            Preset(
                dataset="cifar100",
                values={"weight": 1.2e-3},
                source="the authors' CIFAR-100 setting, ResNet-34 → ResNet-18 in cls_KD",
            ),
            # A WRN's last stage is a residual sum that no ReLU has passed: regenerating it diverges at the weights of the paper.
            Preset(student="wrn_*", values={"student_stage": "final"}, source="the map that a WRN's classifier pools"),
            Preset(teacher="wrn_*", values={"teacher_stage": "final"}, source="the map that a WRN's classifier pools"),
        ),
    )
