"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="ft",
    kind="features",
    summary="paraphrase the teacher's last map by an autoencoder and match the student's translation of it",
    paper="Kim, Park, Kwak 2018, arXiv 1802.04977",
    title="Paraphrasing Complex Network: Network Compression via Factor Transfer",
    authors="Kim, Jangho and Park, SeongUk and Kwak, Nojun",
    venue="NeurIPS",
    implementation="distillctl_ft.method:FT",
    options="distillctl_ft.options:FTOptions",
    formula="mean |N(Q(F_t)) − N(Q(F_s))|, F_t = paraphraser(f_t), F_s = translator(f_s), Q(F) = mean_c F², N(x) = x / ‖x‖₂",
    weight=200.0,
    capturable=True,
    presets=(
        # The phase has the student's learning rate there, unless the student is a ResNet or a WRN.
        Preset(dataset="cifar100", student="vgg*", values={"init_lr": 0.05}, source="RepDistiller's setting for this student"),
        Preset(
            dataset="imagenet",
            teacher="resnet34",
            student="resnet18",
            values={"weight": 1000.0, "factor": "full", "batch_norm": False, "init_epochs": 1},
            source="torchdistill's setting for this pair",
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Factor transfer."""
    return SPEC
