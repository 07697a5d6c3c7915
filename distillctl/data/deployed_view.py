"""How a picture becomes the input of a deployed student, without the data set on which it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl.api.data import ArrayImages, Splits, StoredImage, View, size_between
from distillctl.data.augment import evaluation_transform
from distillctl.data.decode import pixels_of, read_image
from distillctl.data.pixels import Normalise
from distillctl.errors import DataError, ProfileError

Picture = str | Path | StoredImage | Image.Image | np.ndarray[Any, Any] | Tensor
_LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey (ITU-R BT.601), of 65536."""


def description(data: Splits) -> dict[str, object]:
    """How a picture becomes an input in evaluations of these data, as `Preprocessing` takes it."""
    view = data.view
    return {
        "channels": data.channels,
        "size": view.size,
        "resize": _short_side(data),
        "mean": list(data.mean),
        "std": list(data.std),
        **{name: value for name in ("white", "background", "max_megapixels") if (value := getattr(view, name)) is not None},
        **({} if data.joint is None else _laid(view)),
        **({"boxes": True} if getattr(data.train, "boxes", None) is not None else {}),
    }


def _laid(view: View) -> dict[str, object]:
    """How views are cut that have their targets with them."""
    if view.long_side is not None:
        return {"long_side": view.long_side, "multiple": view.multiple}
    return {"joint": True} if view.canvas is None else {"canvas": list(view.canvas)}


def _short_side(data: Splits) -> int:
    """Length of the short side of an image before its centre is cut; images in memory are cut as they are."""
    images = data.train
    return min(images.images.shape[1:3]) if isinstance(images, ArrayImages) else data.view.eval_resize or data.view.size


class Placement(NamedTuple):
    """Where a picture lies in its view: a point of the picture times `scale`, plus `offset`, is one of the view; both in x and y."""

    scale: tuple[float, float]
    offset: tuple[float, float]


_Cut = tuple[Tensor, tuple[int, int], tuple[float, float]]
"""A view, height and width of the picture before it was cut or padded, and its offset."""


class Preprocessing:
    """What an evaluation does with an image file: decode, resize, cut the centre or pad, normalise.

    channels: 1 or 3; pictures in colour become grey for a student of grey ones.
    view: size, resize, canvas and how files are read.
    mean, std: one number a channel, for images scaled to [0, 1].
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        """told: `input` of a `model.json`.

        Raises:
            DataError: it does not say what is needed.
        """
        try:
            self.channels = int(told["channels"])
            self.mean, self.std = tuple(map(float, told["mean"])), tuple(map(float, told["std"]))
            size, resize = int(told["size"]), int(told["resize"])
            reading: Any = {name: told.get(name) for name in ("white", "background", "max_megapixels")}
            canvas = None if (told_canvas := told.get("canvas")) is None else tuple(map(int, told_canvas))
            long_side = None if (told_side := told.get("long_side")) is None else int(told_side)
            multiple = int(told.get("multiple", 1))
            self.view = View(size, eval_resize=resize, canvas=canvas, long_side=long_side, multiple=multiple, **reading)
            self._joint = bool(told.get("joint"))
            fits = self.channels in (1, 3) and len(self.mean) == len(self.std) == self.channels and min(size, resize, *self.std) > 0
            fits = fits and (long_side is None or long_side >= size) and multiple >= 1
            fits = fits and (canvas is None or (len(canvas) == self.channels and 0 <= min(canvas) <= max(canvas) <= 255))
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise DataError("`input` of the student's `model.json` does not say how an image becomes its input")
        self._cut: Any = evaluation_transform(self.view)
        self._normalise = Normalise(self.mean, self.std, torch.device("cpu"))

    @property
    def unequal(self) -> bool:
        """Whether inputs differ in size. They are asked one by one, so that an answer depends on no other picture."""
        return self.view.long_side is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input: channels, height, width; where they differ, of a square picture."""
        return self.channels, self.view.size, self.view.size

    def pixels(self, picture: Picture) -> Tensor:
        """What the student sees of a picture: uint8, `shape`, or as large as it is where sizes differ.

        picture: a file, a picture of Pillow, or uint8 pixels: an array (H, W), (H, W, 1) or (H, W, 3), or a tensor (1 or 3, H, W).

        Raises:
            DataError: the file is missing or cannot be decoded, or only the data set knows how a view is cut.
            ProfileError: the pixels are not of such a type and shape.
        """
        return self.placed(picture)[0]

    def placed(self, picture: Picture) -> tuple[Tensor, Placement]:
        """What `pixels` gives, and where the picture lies in it. Takes and raises what `pixels` does."""
        if self._joint:
            raise DataError("the data set of this student cut its views itself, and `model.json` does not say how")
        whole = self._in_channels(self._decoded(picture))
        cut = self._between if self.unequal else self._centre if self.view.canvas is None else self._on_canvas
        view, size, offset = cut(whole)
        height, width = whole.shape[-2:]
        return view, Placement((size[1] / width, size[0] / height), offset)

    def _between(self, whole: Tensor) -> _Cut:
        """The whole picture between its two sides; the operations are those of `distillctl_coco.sides.Sides`, to the bit."""
        assert self.view.long_side is not None
        height, width = whole.shape[-2:]
        size = size_between(height, width, short=self.view.size, long=self.view.long_side)
        return v2.functional.resize(whole, list(size), antialias=True), size, (0.0, 0.0)

    def _on_canvas(self, whole: Tensor) -> _Cut:
        """The whole picture in the upper left corner; the operations are those of `distillctl_coco.views.Canvas`, to the bit."""
        assert self.view.canvas is not None
        height, width = whole.shape[-2:]
        factor = self.view.size / max(height, width)
        size = max(1, round(height * factor)), max(1, round(width * factor))
        fill = torch.tensor(self.view.canvas, dtype=torch.uint8)
        view = fill[:, None, None].repeat(1, self.view.size, self.view.size)
        view[:, : size[0], : size[1]] = v2.functional.resize(whole, list(size), antialias=True)
        return view, size, (0.0, 0.0)

    def _centre(self, whole: Tensor) -> _Cut:
        resized = self._cut[0](whole)
        height, width = resized.shape[-2:]
        return self._cut[1](resized), (height, width), (_margin(width, self.view.size), _margin(height, self.view.size))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels as the network takes them: (B, C, H, W) uint8 → float32; with `unequal` sizes, zeros beside them."""
        seen = self._normalise(pixels)
        if not self.unequal:
            return seen
        height, width = (-side % self.view.multiple for side in pixels.shape[-2:])
        return F.pad(seen, (0, width, 0, height))

    def __call__(self, picture: Picture) -> Tensor:
        """A picture as the network takes it: float32, `shape`, or as large as it is. Takes and raises what `pixels` does."""
        return self.normalise(self.pixels(picture)[None])[0]

    def _decoded(self, picture: Picture) -> Tensor:
        if isinstance(picture, Image.Image):
            return pixels_of(picture, white=self.view.white, background=self.view.background)
        if isinstance(picture, np.ndarray):
            rows = torch.from_numpy(np.ascontiguousarray(picture))
            picture = rows[None] if rows.ndim == 2 else rows.permute(2, 0, 1) if rows.ndim == 3 else rows
        if not isinstance(picture, Tensor):
            return read_image(picture, **self.view.reading)
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] not in (1, 3):
            raise ProfileError(
                f"pixels must be uint8: an array (H, W, 3) or a tensor (3, H, W), not {picture.dtype} {tuple(picture.shape)}",
                hint="one picture at a time; `normalise` takes batches of pixels that are cut",
            )
        return picture

    def _in_channels(self, pixels: Tensor) -> Tensor:
        if pixels.shape[0] == self.channels:
            return pixels
        if self.channels == 3:
            return pixels.expand(3, -1, -1)
        grey = sum(share * plane.int() for share, plane in zip(_LUMA, pixels, strict=True))
        assert isinstance(grey, Tensor)
        return ((grey + (1 << 15)) >> 16).to(torch.uint8)[None]


def _margin(side: int, size: int) -> float:
    """Where a side begins from which the middle is cut, or which is padded to `size`, as torchvision rounds it."""
    return float((size - side) // 2 if side < size else -round((side - size) / 2))
