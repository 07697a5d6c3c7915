"""Declares the task of images without labels."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import TaskSpec


@hookimpl
def register_task() -> TaskSpec:
    """Distillation without labels."""
    return TaskSpec(
        name="unlabelled",
        summary="images without labels, learnt from a teacher alone: agreement with it, KL, cosine of logits and features, k-NN accuracy",
        implementation="distillctl.builtin.unlabelled_task:Unlabelled",
        labelled=False,
        figures=("agreement", "kl", "cosine", "feature_cosine", "knn"),
    )
