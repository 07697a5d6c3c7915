"""Declares `none` and `kd`."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import MethodSpec, Preset


@hookimpl
def register_method() -> list[MethodSpec]:
    """The control, and Hinton's distillation."""
    return [
        MethodSpec(
            name="none",
            kind="labels",
            summary="labels alone: teachers and controls",
            implementation="distillctl.builtin.none:NoMethod",
            formula="L = CE(z_s, y)",
            needs_teacher=False,
        ),
        MethodSpec(
            name="kd",
            kind="logits",
            summary="match the teacher's softened class probabilities",
            paper="Hinton, Vinyals, Dean 2015, arXiv 1503.02531",
            implementation="distillctl.builtin.kd:KD",
            options="distillctl.builtin.kd_options:KDOptions",
            formula="T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T))",
            weight=0.9,
            task_weight=0.1,
            takes_temperature=True,
            presets=(
                Preset(
                    dataset="imagenet",
                    values={"weight": 0.5, "task_weight": 0.5, "temperature": 1.0},
                    source="mdistiller's ImageNet setting",
                ),
            ),
        ),
    ]
