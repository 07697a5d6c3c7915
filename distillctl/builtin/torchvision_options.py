"""Options of torchvision's models: only what torchvision's own builders take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl.api.options import Options

Share = Annotated[float, Field(ge=0, lt=1)]


class DropoutOptions(Options):
    """Models with dropout."""

    dropout: Share | None = None
    """Share of the values dropped before the classifier (DenseNet: after every layer; Swin: in every block). Without it,
    torchvision's default for this model."""


class DepthOptions(Options):
    """Models with stochastic depth."""

    stochastic_depth: Share | None = None
    """Probability to drop the deepest residual branch; it rises linearly from 0 at the first. Without it, torchvision's
    default for this model."""


class DropoutDepthOptions(DropoutOptions, DepthOptions):
    """Models with both."""


class ResNetOptions(Options):
    """ResNets, with grouped convolutions and wide ones too."""

    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    """End after so many of the four stages, with an average and a classifier there: a student that is the beginning of its teacher, and
    may start from the teacher's weights by `checkpoint` or `weights`. Without it, all."""
    small_images: bool | None = None
    """true: a first convolution of 3×3 with stride 1 and no max pooling, for images of 32 to 64 pixels. Pretrained weights keep all but
    that convolution. Without it, torchvision's 7×7 with stride 2."""


class InceptionOptions(DropoutOptions):
    """GoogLeNet and Inception v3."""

    transform_input: bool = True
    """Rescale images that were normalised with ImageNet's mean and deviation to [-1, 1], inside the model. The pretrained
    weights need it; set it to false for a checkpoint that was trained without it."""


class VitOptions(DropoutOptions):
    """Vision transformers."""

    image_size: Annotated[int, Field(ge=14)] = 224
    """Side length in pixels of the images, a multiple of the patch. The `IMAGENET1K_SWAG_E2E_V1` weights were made for 384
    (vit_b_16), 512 (vit_l_16) and 518 (vit_h_14)."""


class MaxVitOptions(Options):
    """MaxViT."""

    image_size: Annotated[int, Field(ge=224, multiple_of=224)] = 224
    """Side length in pixels of the images, a multiple of 224."""
