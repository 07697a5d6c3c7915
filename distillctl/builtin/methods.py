"""Declares `none` and `kd`."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import MethodSpec, Preset

_PAPER = "Hinton, Vinyals, Dean 2015, arXiv 1503.02531"
_TITLE = "Distilling the Knowledge in a Neural Network"
_AUTHORS = "Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff"


@hookimpl
def register_method() -> list[MethodSpec]:
    """The control, and Hinton's distillation under two names."""
    return [
        MethodSpec(
            name="none",
            kind="labels",
            summary="labels alone: teachers and controls",
            implementation="distillctl.builtin.none:NoMethod",
            formula="L = CE(z_s, y)",
            needs_teacher=False,
            capturable=True,
        ),
        MethodSpec(
            name="kd",
            kind="logits",
            reads=("logits",),
            unit="rows",
            binary=True,
            summary="match the teacher's softened class probabilities",
            paper=_PAPER,
            title=_TITLE,
            authors=_AUTHORS,
            implementation="distillctl.builtin.kd:KD",
            options="distillctl.builtin.kd_options:KDOptions",
            formula="T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T))",
            weight=0.9,
            task_weight=0.1,
            takes_temperature=True,
            capturable=True,
            presets=(
                Preset(
                    dataset="imagenet",
                    values={"weight": 0.5, "task_weight": 0.5, "temperature": 1.0},
                    source="mdistiller's ImageNet setting",
                ),
            ),
        ),
        MethodSpec(
            name="soft-target",
            kind="logits",
            reads=("logits",),
            unit="rows",
            binary=True,
            summary="`kd` with its weight given as a ratio, as in pytorch-classifier",
            paper=_PAPER,
            title=_TITLE,
            authors=_AUTHORS,
            implementation="distillctl.builtin.soft_target:SoftTarget",
            options="distillctl.builtin.kd_options:SoftTargetOptions",
            formula="r/(1 − r) · T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T))",
            takes_temperature=True,
            capturable=True,
        ),
    ]
