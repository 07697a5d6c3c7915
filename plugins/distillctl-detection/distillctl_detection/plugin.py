"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, ModelSpec, TaskSpec, WeightsInput, hookimpl

DISTILLCTL_API = 1

_IMAGENET = WeightsInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

FASTERRCNN = ModelSpec(
    name="fasterrcnn",
    namespace="detection",
    summary="Faster R-CNN with a feature pyramid on a backbone of torchvision; its proposals are the rows of methods on logits",
    paper="Ren et al. 2015, arXiv 1506.01497; Lin et al. 2017, arXiv 1612.03144",
    implementation="distillctl_detection.fasterrcnn:build",
    options="distillctl_detection.options:FasterRCNNOptions",
    stages={
        **{f"p{level + 2}": f"backbone.fpn.layer_blocks.{level}" for level in range(4)},
        "p6": "backbone.fpn.extra_blocks.pool",
        **{f"c{level + 2}": f"backbone.fpn.inner_blocks.{level}:input" for level in range(4)},
    },
    aside=("c2", "c3", "c4", "c5"),
    weights=("imagenet", "coco"),
    weights_loader="distillctl_detection.weights:load",
    weights_input={"imagenet": _IMAGENET, "coco": _IMAGENET},
    replaceable=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    input_size=800,
)


ONNX = ModelSpec(
    name="onnx",
    namespace="detection",
    summary="a detector in an ONNX file (YOLOX, DETR's family, torchvision's), as a teacher by its boxes",
    paper="YOLOX: Ge et al. 2021, arXiv 2107.08430",
    implementation="distillctl_detection.foreign:build",
    options="distillctl_detection.onnx_options:OnnxOptions",
    own_file=True,
    weights_input={"": WeightsInput(mean=(0.0,) * 3, std=(1.0,) * 3)},
    input_size=416,
)


@hookimpl
def register_task() -> TaskSpec:
    """Boxes with classes."""
    return TaskSpec(
        name="detection",
        summary="boxes with classes, learnt by the detector's own losses and judged by AP as COCO counts it",
        implementation="distillctl_detection.task:Detection",
    )


@hookimpl
def register_model() -> list[ModelSpec]:
    """The detectors."""
    return [FASTERRCNN, ONNX]


@hookimpl
def register_dataset() -> DatasetSpec:
    """The data set of the quickstart."""
    return DatasetSpec(
        name="shapes",
        summary="squares, circles and triangles of several sizes on noise, drawn from a seed: no download, minutes to train a detector",
        implementation="distillctl_detection.shapes:build",
        options="distillctl_detection.options:ShapesOptions",
        task="detection",
    )
