"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_PAPER = "Zheng, Yang 2024, arXiv 2402.11148"
_TITLE = "Knowledge Distillation Based on Transformed Teacher Matching"
_AUTHORS = "Zheng, Kaixiang and Yang, En-Hui"

TTM = MethodSpec(
    name="ttm",
    kind="logits",
    reads=("logits",),
    unit="rows",
    summary="match the teacher's probabilities raised to a power, the student's as they are: temperature for the teacher alone",
    paper=_PAPER,
    title=_TITLE,
    authors=_AUTHORS,
    venue="ICLR",
    implementation="distillctl_ttm.method:TTM",
    options="distillctl_ttm.options:TTMOptions",
    formula="mean_B KL(q ‖ softmax(z_s)), q ∝ softmax(z_t)^γ",
    weight=45.0,
    capturable=True,
    presets=(
        Preset(
            dataset="cifar100",
            teacher="vgg13",
            student="vgg8",
            values={"weight": 45.0, "gamma": 0.1},
            source="the authors' command for this pair",
        ),
    ),
)

WTTM = MethodSpec(
    name="wttm",
    kind="logits",
    reads=("logits",),
    unit="rows",
    summary="`ttm` with more weight for the images of which the teacher is less sure",
    paper=_PAPER,
    title=_TITLE,
    authors=_AUTHORS,
    venue="ICLR",
    implementation="distillctl_ttm.method:WTTM",
    options="distillctl_ttm.options:WTTMOptions",
    formula="mean_B U · KL(q ‖ softmax(z_s)), q = softmax(z_t)^γ / U, U = Σ_c softmax(z_t)_c^γ",
    weight=4.0,
    capturable=True,
    presets=(
        Preset(
            dataset="cifar100",
            teacher="vgg13",
            student="vgg8",
            values={"weight": 4.0, "gamma": 0.2},
            source="the authors' command for this pair, beside `crd`",
        ),
    ),
)


@hookimpl
def register_method() -> list[MethodSpec]:
    """Transformed teacher matching, without and with the weight of each image."""
    return [TTM, WTTM]
