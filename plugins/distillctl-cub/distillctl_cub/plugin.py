"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, hookimpl

DISTILLCTL_API = 1
CUB200 = DatasetSpec(
    name="cub200",
    summary="200 kinds of birds, 11,788 photographs (CUB-200-2011), with the official or a seeded split",
    paper="Wah, Branson, Welinder, Perona, Belongie 2011, The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001",
    implementation="distillctl_cub.data:build",
    options="distillctl_cub.options:CUBOptions",
    preview="distillctl_cub.unpack:preview",
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """CUB-200-2011."""
    return CUB200
