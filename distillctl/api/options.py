"""The base of every table of options: unknown keys are refused, values are not converted silently."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_SMALLEST_FACTOR = 1e-12
_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes, as Linux has it; asking the system about longer ones is an error of its own


def _as_path(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:  # pydantic would let it through
        raise ValueError(f"`{value[:80]}` begins with the home folder of a user who has none") from error
    if len(os.fsencode(path)) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise ValueError(f"`{value[:40]}…` is longer than a path can be")
    return str(path)  # which pydantic takes from JSON, too


PathOption = Annotated[Path, BeforeValidator(_as_path), Field(strict=False)]
"""A path in an options model. Relative paths are meant from the current directory; `~` is expanded."""


def _one_feature(value: str) -> str:
    if value in ("stages", "stages:pre"):
        raise ValueError(f"`{value}` stands for several features; name one stage")
    return value


def _distinct(value: list[str]) -> list[str]:
    if len(set(value)) != len(value):
        raise ValueError("a stage is named twice")
    return value


StageName = Annotated[str, Field(min_length=1), AfterValidator(_one_feature)]
"""The name of one feature: a stage, `last`, `final`, `pooled`, or a module path (see `distillctl.Wants`)."""

StageNames = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_distinct)]
"""Names of features, shallow to deep; `["stages"]` stands for all stages of a model, `["stages:pre"]` for all before their last ReLU."""


Temperature = Annotated[float, Field(ge=1e-3, le=1e4)]
"""What logits or similarities are divided by. Beyond these bounds nothing is left of a softmax but its largest entry, or all are equal."""


def _seen_in_float32(value: float) -> float:
    if 0 < value < _SMALLEST_FACTOR:
        raise ValueError(f"{value:g} has no effect beside other terms; 0 leaves the term out")
    return value


Factor = Annotated[float, Field(ge=0, le=1e9), AfterValidator(_seen_in_float32)]
"""What a term is multiplied by: 0, or a number with which the sum stays in the range of float32."""

Epsilon = Annotated[float, Field(ge=1e-20, le=0.1)]
"""What keeps a quotient, a root or a logarithm from zero."""


FileAugment = Literal["none", "resize_crop", "crop_flip", "random_resized_crop", "autoaugment", "randaugment", "trivialaugment", "augmix"]
"""How files of training images are cut and changed: what an option `augment` of a data set of files can be."""

_ANY_SIZE = ("none", "random_resized_crop", "trivialaugment", "augmix")
"""Those that take an image as large as it is."""


FileCache = Literal["none", "ram", "disk"]
"""Where files are kept decoded and resized: what an option `cache` of a data set of files can be."""


def check_image_sizes(image_size: int, augment: str, resize: int, eval_resize: int, cache: str = "none") -> None:
    """Checks the options of these names, those of a data set of image files; for a validator of its options.

    image_size: side length in pixels of what the network sees. resize, eval_resize: lengths in pixels of the short side, or 0.
    cache: see `FileCache`.

    Raises:
        ValueError: `resize` or `cache` is given with an `augment` that has no use for it, or a length is smaller than `image_size`.
    """
    if cache != "none" and augment in _ANY_SIZE[1:]:
        raise ValueError(
            f'`cache = "{cache}"` keeps images after their resize, and `augment = "{augment}"` cuts at random from images of full size; '
            "`crop_flip`, `resize_crop`, `autoaugment`, `randaugment` and `none` resize first"
        )
    if resize and augment in _ANY_SIZE:
        raise ValueError(f'`resize` has no effect with `augment = "{augment}"`')
    for name, value in (("resize", resize), ("eval_resize", eval_resize)):
        if 0 < value < image_size:
            raise ValueError(f"`{name}` must be at least `image_size` ({image_size}), not {value}")


class Options(BaseModel):
    """Options of a method, model, data set or optimizer.

    Give every field a description and its bounds; put units into the name (`warmup_epochs`). Lists are `list[...]`.
    What the code can measure (channels, image counts) is not an option.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
