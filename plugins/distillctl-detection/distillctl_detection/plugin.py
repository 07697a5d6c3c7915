"""What this package declares to distillctl."""

from __future__ import annotations

from dataclasses import replace

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
    weights_file="backbone_checkpoint",
    weights_of_part="distillctl_detection.weights:of_backbone",
    weights_input={"imagenet": _IMAGENET, "coco": _IMAGENET},
    replaceable=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    input_size=800,
)

_ONE_STAGE: dict[str, str] = {
    **{f"p{level + 3}": f"backbone.fpn.layer_blocks.{level}" for level in range(3)},
    **{f"p{level}": f"backbone.fpn.extra_blocks.p{level}" for level in (6, 7)},
    **{f"c{level + 3}": f"backbone.fpn.inner_blocks.{level}:input" for level in range(3)},
}

RETINANET = ModelSpec(
    name="retinanet",
    namespace="detection",
    summary="RetinaNet: a detector of one stage with a sigmoid for each class and the focal loss, on a backbone of torchvision",
    paper="Lin et al. 2017, arXiv 1708.02002",
    implementation="distillctl_detection.one_stage:build_retinanet",
    options="distillctl_detection.options:RetinaNetOptions",
    stages=_ONE_STAGE,
    aside=("c3", "c4", "c5"),
    binary=True,
    weights=("imagenet", "coco"),
    weights_loader="distillctl_detection.weights:load",
    weights_file="backbone_checkpoint",
    weights_of_part="distillctl_detection.weights:of_backbone",
    weights_input={"imagenet": _IMAGENET, "coco": _IMAGENET},
    replaceable=("head.classification_head.cls_logits",),
    input_size=800,
)

FCOS = replace(
    RETINANET,
    name="fcos",
    summary="FCOS: a detector of one stage without anchors, with a sigmoid for each class, on a backbone of torchvision",
    paper="Tian et al. 2019, arXiv 1904.01355",
    implementation="distillctl_detection.one_stage:build_fcos",
    options="distillctl_detection.options:FCOSOptions",
)

SSDLITE = ModelSpec(
    name="ssdlite",
    namespace="detection",
    summary="SSDlite with a MobileNetV3-large: a small detector of one stage; the boxes it learns from are the rows of methods on logits",
    paper="Liu et al. 2016, arXiv 1512.02325; Sandler et al. 2018, arXiv 1801.04381; Howard et al. 2019, arXiv 1905.02244",
    implementation="distillctl_detection.one_stage:build_ssdlite",
    options="distillctl_detection.options:SSDLiteOptions",
    stages={
        "p4": "backbone.features.0",
        "p5": "backbone.features.1",
        **{f"p{level + 6}": f"backbone.extra.{level}" for level in range(4)},
        "p4:pre": "backbone.features.0.13.2:input",
        "p5:pre": "backbone.features.1.3.2:input",
        **{f"p{level + 6}:pre": f"backbone.extra.{level}.2.2:input" for level in range(4)},
    },
    weights=("imagenet", "coco"),
    weights_loader="distillctl_detection.weights:load",
    weights_file="backbone_checkpoint",
    weights_of_part="distillctl_detection.weights:of_backbone",
    weights_input={"imagenet": _IMAGENET, "coco": WeightsInput(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))},
    replaceable=tuple(f"head.classification_head.module_list.{level}.1" for level in range(6)),
    input_size=320,
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
        figures=("map", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    )


@hookimpl
def register_model() -> list[ModelSpec]:
    """Detectors of two stages and of one, and those of a file."""
    return [FASTERRCNN, RETINANET, FCOS, SSDLITE, ONNX]


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
