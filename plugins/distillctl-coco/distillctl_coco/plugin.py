"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, hookimpl

DISTILLCTL_API = 1
COCO = DatasetSpec(
    name="coco",
    summary="images with boxes to detect: COCO's annotation files (JSON), or YOLO's text files",
    paper="Lin et al. 2014, arXiv 1405.0312",
    title="Microsoft COCO: Common Objects in Context",
    authors="Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro and Ramanan, Deva and "
    "Dollár, Piotr and Zitnick, C. Lawrence",
    venue="ECCV",
    task="detection",
    implementation="distillctl_coco.data:build",
    options="distillctl_coco.options:CocoOptions",
    preview="distillctl_coco.places:preview",
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """Images with boxes."""
    return COCO
