"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_BENCHMARK = "mdistiller's setting for this pair"
_BETA = {  # (teacher, student) on CIFAR-100
    ("resnet32x4", "resnet8x4"): 8.0,
    ("resnet32x4", "ShuffleV1"): 8.0,
    ("resnet32x4", "ShuffleV2"): 8.0,
    ("wrn_40_2", "ShuffleV1"): 8.0,
    ("ResNet50", "MobileNetV2"): 8.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "MobileNetV2"): 6.0,
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
}
_IMAGENET = {("resnet34", "resnet18"): 0.5, ("resnet50", "mobile*v1*"): 2.0}

SPEC = MethodSpec(
    name="dkd",
    kind="logits",
    reads=("labels", "logits"),
    unit="rows",
    summary="distil the target class and the other classes apart, each with its own weight",
    paper="Zhao, Cui, Song, Qiu, Liang 2022, arXiv 2203.08679",
    title="Decoupled Knowledge Distillation",
    authors="Zhao, Borui and Cui, Quan and Song, Renjie and Qiu, Yiyu and Liang, Jiajun",
    venue="CVPR",
    implementation="distillctl_dkd.method:DKD",
    options="distillctl_dkd.options:DKDOptions",
    formula="T² · mean_B [α · KL(b_t ‖ b_s) + β · KL(q_t ‖ q_s)], b = (p_y, 1 − p_y), q = softmax of the logits other than y",
    warmup_epochs=20.0,
    of_epochs=240,
    takes_temperature=True,
    capturable=True,
    presets=(
        *(
            Preset(dataset="cifar100", teacher=teacher, student=student, values={"beta": beta}, source=_BENCHMARK)
            for (teacher, student), beta in _BETA.items()
        ),
        *(
            Preset(
                dataset="imagenet",
                teacher=teacher,
                student=student,
                values={"temperature": 1.0, "beta": beta, "warmup_epochs": 1.0},
                of_epochs=100,
                source=_BENCHMARK,
            )
            for (teacher, student), beta in _IMAGENET.items()
        ),
        Preset(
            dataset="coco",
            values={"beta": 0.25, "temperature": 1.0, "warmup_epochs": 0.0},  # and α = 1, as everywhere
            source="mdistiller's setting for proposals of COCO",
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Decoupled knowledge distillation."""
    return SPEC
