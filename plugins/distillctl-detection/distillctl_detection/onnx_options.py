"""Options of `onnx`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options

_Name = Annotated[str, Field(min_length=1)]


class OnnxOptions(Options):
    """Options of `onnx`."""

    layout: Literal["yolox", "decoded"] | None = None
    """What the file gives. `yolox`: one output (1, A, 5 + K), of cells at strides 8, 16 and 32 centre, size, objectness and classes.
    `decoded`: boxes, labels and scores, as DETR's family and torchvision's detectors are exported. By default what its outputs tell."""
    channels: Literal["rgb", "bgr"] | None = None
    """Order of the colours that the file expects; by default `bgr` for `yolox` and `rgb` otherwise."""
    white: Literal[1, 255] | None = None
    """Value of white that the file expects; by default 255 for `yolox` and 1 otherwise. With `mean` and `std` in the table, normalised
    values are multiplied by it."""
    fit: Literal["pad", "stretch"] | None = None
    """How a picture becomes the file's input: `pad`, resized with its aspect ratio, in the upper left corner of grey; `stretch`, resized to
    the whole. By default `stretch` where the file has an input `orig_target_sizes`, otherwise `pad`."""
    grey: Annotated[int, Field(ge=0, le=255)] = 114
    """pad: value beside the picture, of 255."""
    classes: Annotated[list[_Name], Field(min_length=1)] | None = None
    """Names of the classes in the file's order; by default the 80 of COCO in the order of their ids. They mean the data set's classes of
    the same names."""
    numbering: Literal["zero", "one", "coco"] | None = None
    """decoded: how its labels number the classes: from 0, from 1 (0 is the background), or by COCO's ids with their gaps. By default from 0
    where outputs have a dimension for the batch; otherwise, as torchvision has it, `coco` for COCO's classes and `one` for others."""
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Detections with a smaller score are left out."""
    nms: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of two detections of a class whose boxes overlap by more than this (intersection over union) the better one stays; by default 0.65
    for `yolox`, and none for `decoded`."""
    detections: Annotated[int, Field(ge=1, le=100_000)] = 100
    """The most detections of an image."""
