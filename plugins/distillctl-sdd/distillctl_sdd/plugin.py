"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_GRIDS = tuple(
    Preset(teacher=family, student=family, values={"scales": [1, 2]}, source="the authors' grids for pairs of one family")
    for family in ("resnet*", "ResNet*", "wrn_*", "vgg*")
)
_BASES = tuple(
    Preset(
        when={"base": base}, values={"weight": 1.0, "task_weight": 1.0, "warmup_epochs": 20.0}, of_epochs=240, source="the authors' setting"
    )
    for base in ("dkd", "nkd")
)

SPEC = MethodSpec(
    name="sdd",
    kind="features",  # it reads maps: a wrapper that changes logits (`lskd`) would have no effect on those of the regions
    summary="distil the logits of regions of the last map too, more where they contradict the whole (also answers to `ssd`)",
    aliases=("ssd",),
    paper="Wei, Luo, Luo 2024, arXiv 2403.13512",
    title="Scale Decoupled Distillation",
    authors="Wei, Shicai and Luo, Chunbo and Luo, Yang",
    venue="CVPR",
    implementation="distillctl_sdd.method:SDD",
    options="distillctl_sdd.options:SDDOptions",
    formula="mean_B mean_R w_r · ℓ(z_s,r, z_t,r), z_r = classifier(mean over region r), w_r = 2 where right_r ≠ right_1, else 1",
    weight=0.9,
    task_weight=0.1,
    takes_temperature=True,
    reads=("labels", "logits"),
    capturable=True,
    presets=(*_GRIDS, *_BASES),
)


@hookimpl
def register_method() -> MethodSpec:
    """Scale decoupled distillation."""
    return SPEC
