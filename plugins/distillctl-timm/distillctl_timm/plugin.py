"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import ModelFamily, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_model() -> ModelFamily:
    """Every classifier of timm."""
    return ModelFamily(
        name="timm",
        summary="every classifier of timm",
        implementation="distillctl_timm.table:find",
        names="distillctl_timm.table:names",
        paper="Wightman 2019, PyTorch Image Models",
    )
