"""Declares `mgd`."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_BIRDS: tuple[tuple[str, str, float], ...] = (  # teacher, its last map at stride 32, share r of distillation
    ("resnet50", "last", 0.7),
    ("efficientnet_v2_s", "last", 0.7),
    ("ghostnet_100", "blocks.8", 0.2),  # the declared stages of timm's GhostNet end earlier
)


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
        capturable=True,
        presets=(
            Preset(
                dataset="cifar100",
                values={"weight": 1.2e-3},
                source="the authors' CIFAR-100 setting, ResNet-34 → ResNet-18 in cls_KD",
            ),
            *(
                Preset(
                    dataset="cub200",
                    teacher=teacher,
                    student="mobilenet_v2",
                    values={"weight": 7e-5 * r / (1 - r), "teacher_stage": stage, "decay_biases": True},
                    source="pytorch-classifier's run for this pair",
                )
                for teacher, stage, r in _BIRDS
            ),
            # A WRN's last stage is a residual sum that no ReLU has passed: regenerating it diverges at the weights of the paper.
            Preset(student="wrn_*", values={"student_stage": "final"}, source="the map that a WRN's classifier pools"),
            Preset(teacher="wrn_*", values={"teacher_stage": "final"}, source="the map that a WRN's classifier pools"),
        ),
    )
