"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_SETTINGS = {  # (teacher, student) on CIFAR-100, where the authors' runs of KD have not temperature 2 and weight 9
    ("vgg13", "vgg8"): {"temperature": 3.0},
    ("vgg13", "MobileNetV2"): {"temperature": 3.0},
    ("wrn_40_2", "MobileNetV2"): {"temperature": 3.0},
    ("resnet32x4", "wrn_16_2"): {"temperature": 3.0},
    ("resnet32x4", "wrn_40_2"): {"temperature": 3.0},
    ("ResNet50", "MobileNetV2"): {"temperature": 3.0, "weight": 1.0},
    ("resnet110", "resnet20"): {"temperature": 4.0, "weight": 12.0},
}
_AROUND_DKD: dict[tuple[str, str], dict[str, object]] = {  # (teacher, student) on CIFAR-100
    ("wrn_40_2", "wrn_16_2"): {"temperature": 2.0, "weight": 12.0, "inner.beta": 2.0},
    ("vgg13", "vgg8"): {"weight": 15.0, "inner.beta": 2.0},
    ("ResNet50", "MobileNetV2"): {"weight": 15.0, "inner.beta": 2.0},
    ("resnet56", "resnet20"): {"temperature": 3.0, "weight": 18.0, "inner.beta": 2.0},
}

SPEC = MethodSpec(
    name="lskd",
    kind="wrapper",
    reads=("logits",),
    summary="standardise each sample's logits before another method compares them",
    paper="Sun, Ren, Li, Wang, Cao 2024, arXiv 2403.01427",
    title="Logit Standardization in Knowledge Distillation",
    authors="Sun, Shangquan and Ren, Wenqi and Li, Jingzhi and Wang, Rui and Cao, Xiaochun",
    venue="CVPR",
    implementation="distillctl_lskd.method:LSKD",
    options="distillctl_lskd.options:LSKDOptions",
    formula="L_inner of Z(z_s), Z(z_t) at temperature T; Z(z) = (z − mean z) / √(var z + ε), sample by sample",
    weight=9.0,
    task_weight=0.1,
    takes_temperature=True,
    capturable=True,
    inner="kd",
    inner_kinds=("logits", "wrapper"),
    presets=(
        *(
            Preset(dataset="cifar100", teacher=t, student=s, inner="kd", values=values, source="the authors' run of KD for this pair")
            for (t, s), values in _SETTINGS.items()
        ),
        Preset(
            inner="dkd",
            values={"task_weight": 1.0, "warmup_epochs": 20.0},
            of_epochs=240,
            source="the authors' runs of DKD, most of which also have β 2 and weights from 9 to 18",
        ),
        *(
            Preset(dataset="cifar100", teacher=t, student=s, inner="dkd", values=values, source="the authors' run of DKD for this pair")
            for (t, s), values in _AROUND_DKD.items()
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Logit standardization."""
    return SPEC
