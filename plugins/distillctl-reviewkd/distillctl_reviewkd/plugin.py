"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_WEIGHT = {  # (teacher, student) on CIFAR-100
    ("resnet32x4", "resnet8x4"): 5.0,
    ("resnet32x4", "ShuffleV1"): 5.0,
    ("resnet32x4", "ShuffleV2"): 8.0,
    ("wrn_40_2", "wrn_16_2"): 5.0,
    ("wrn_40_2", "wrn_40_1"): 5.0,
    ("wrn_40_2", "ShuffleV1"): 5.0,
    ("resnet56", "resnet20"): 0.6,
    ("resnet110", "resnet32"): 1.0,
}
_IMAGENET: dict[str, object] = {"warmup_epochs": 1.0, "student_stages": ["stages:pre"]}

SPEC = MethodSpec(
    name="reviewkd",
    kind="features",
    summary="fuse the student's deep features into its shallow ones, and fit each level to the teacher at several scales",
    paper="Chen, Liu, Zhao, Jia 2021, arXiv 2104.09044",
    title="Distilling Knowledge via Knowledge Review",
    authors="Chen, Pengguang and Liu, Shu and Zhao, Hengshuang and Jia, Jiaya",
    venue="CVPR",
    implementation="distillctl_reviewkd.method:ReviewKD",
    options="distillctl_reviewkd.options:ReviewKDOptions",
    formula="Σ_k HCL(ABF_k(f_s,k, ABF_k+1(…)), f_t,k), HCL = Σ_l w_l · mean (pool_l(f) − pool_l(f_t))², l = whole map, 4, 2, 1",
    weight=5.0,
    warmup_epochs=20.0,
    of_epochs=240,
    capturable=True,
    presets=(
        *(
            Preset(
                dataset="cifar100", teacher=teacher, student=student, values={"weight": weight}, source="the authors' setting for this pair"
            )
            for (teacher, student), weight in _WEIGHT.items()
        ),
        Preset(
            dataset="imagenet",
            teacher="resnet34",
            student="resnet18",
            values={"weight": 1.0, **_IMAGENET},
            of_epochs=100,
            source="mdistiller's setting for this pair",
        ),
        Preset(
            dataset="imagenet",
            teacher="resnet50",
            student="mobile*v1*",
            values={"weight": 8.0, "mid_channels": 256, **_IMAGENET},
            of_epochs=100,
            source="mdistiller's setting for this pair, `mid_channels` from the authors' code",
        ),
        Preset(
            dataset="coco",
            values={"teacher_stages": ["stages"], "pooled": False, "warmup_epochs": 0.0},
            source="the authors' setting for pyramids",
        ),
        Preset(dataset="coco", values={"weight": 1.0}, source="the authors' setting for ResNet-101 → ResNet-50"),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Knowledge review."""
    return SPEC
