"""Options of the models and of `shapes`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, PathOption

Count = Annotated[int, Field(ge=1, le=100_000)]
Width = Annotated[int, Field(ge=8, le=4096)]
Threshold = Annotated[float, Field(ge=0, lt=1)]
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]
TimmName = Annotated[str, Field(pattern=r"^timm/.+$")]


class PyramidOptions(Options):
    """Options of detectors with a feature pyramid."""

    backbone: BackboneName | TimmName = "resnet50"
    """Network of torchvision, or as `timm/NAME` one of timm, whose last maps at strides 4, 8, 16 and 32 (`c2` to `c5`) the pyramid is built
    on."""
    trained_stages: Annotated[int, Field(ge=0, le=5)] = 5
    """How many of the backbone's five parts (first layers, then those that end with `c2` to `c5`) are trained, from the last one: 5 for
    all. With pretrained weights, 3 is usual."""
    frozen_norm: bool = False
    """Batch normalisation of the backbone keeps its statistics and its weights as they are loaded. Usual with pretrained weights and small
    batches; without pretrained weights the backbone is not normalised at all then."""
    backbone_checkpoint: PathOption | None = None
    """File of weights for the backbone alone, with torchvision's or timm's names for the classification network, whose head is left out; a
    student that states it starts from it."""
    width: Width = 256
    """Channels of the pyramid's levels."""


class FasterRCNNOptions(PyramidOptions):
    """Options of `fasterrcnn`. Without them it is torchvision's, for images of 800 pixels."""

    head_width: Width = 1024
    """Width of the two layers that every proposal goes through."""
    anchor_size: Annotated[float, Field(ge=2, le=512)] = 32.0
    """Side length in pixels of the anchors at `p2`; they double with every level, up to `p6`. 32 is meant for images of 800 pixels."""
    proposals: Count = 2000
    """The most proposals of an image in training; half as many in evaluation."""
    anchor_samples: Count = 256
    """Anchors of an image from which the proposal network learns in a step."""
    box_samples: Count = 512
    """Proposals of an image from which the box head learns in a step, and which are the rows of methods on logits."""
    score_threshold: Threshold = 0.05
    """Detections with a smaller score are left out."""
    detections: Count = 100
    """The most detections of an image."""


class RetinaNetOptions(PyramidOptions):
    """Options of `retinanet`. Without them it is torchvision's, for images of 800 pixels."""

    anchor_size: Annotated[float, Field(ge=2, le=512)] = 32.0
    """Side length in pixels of the smallest anchors at `p3`; they double with every level, up to `p7`. 32 is meant for images of 800
    pixels."""
    score_threshold: Threshold = 0.05
    """Detections with a smaller score are left out."""
    detections: Count = 300
    """The most detections of an image."""


class FCOSOptions(PyramidOptions):
    """Options of `fcos`. Without them it is torchvision's, for images of 800 pixels."""

    width: Annotated[int, Field(ge=64, le=4096, multiple_of=32)] = 256
    """Channels of the pyramid's levels, which its head normalises in 32 groups."""  # of 32, a map of one value would have no variance
    score_threshold: Threshold = 0.2
    """Detections with a smaller score are left out."""
    detections: Count = 100
    """The most detections of an image."""


class SSDLiteOptions(Options):
    """Options of `ssdlite`. Without them it is torchvision's, for images of 320 pixels."""

    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """What the numbers of channels of the MobileNetV3-large are multiplied by."""
    backbone_checkpoint: PathOption | None = None
    """File of weights for the MobileNetV3-large alone, with torchvision's names for the classification network, whose head is left out; a
    student that states it starts from it."""
    reduced_tail: bool = True
    """Whether the last blocks of the MobileNetV3-large have half their channels, as torchvision's detector has it; its weights for ImageNet
    have all."""
    trained_stages: Annotated[int, Field(ge=0, le=6)] = 6
    """How many of the backbone's six parts, each of which halves the maps' sides but for the last, are trained, from the last one: 6 for
    all."""
    score_threshold: Threshold = 0.001
    """Detections with a smaller score are left out."""
    detections: Count = 300
    """The most detections of an image."""


class ShapesOptions(Options):
    """Options of `shapes`."""

    train: Count = 480
    """Training pictures."""
    val: Count = 96
    """Validation pictures."""
    test: Count = 96
    """Test pictures."""
    image_size: Annotated[int, Field(ge=64, le=512, multiple_of=32)] = 96
    """Side length of the pictures in pixels."""
    most: Annotated[int, Field(ge=1, le=10)] = 4
    """The most shapes in a picture; the fewest are none."""
    noise: Annotated[float, Field(ge=0, le=64)] = 24.0
    """Standard deviation of the noise on every pixel, of 255."""
