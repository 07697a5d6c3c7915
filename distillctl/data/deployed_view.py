"""How a picture becomes the input of a deployed student, without the data set on which it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillctl.api.data import StoredImage, View
from distillctl.data.augment import evaluation_transform
from distillctl.data.decode import pixels_of, read_image
from distillctl.data.pixels import Normalise
from distillctl.errors import DataError, ProfileError

Picture = str | Path | StoredImage | Image.Image | np.ndarray[Any, Any] | Tensor
_LUMA = (19595, 38470, 7471)
"""Shares of red, green and blue in grey (ITU-R BT.601), of 65536."""


class Preprocessing:
    """What an evaluation does with an image file: decode, resize the short side, cut the centre, normalise.

    channels: 1 or 3; pictures in colour become grey for a student of grey ones.
    view: size, resize and how files are read.
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
            self.view = View(size, eval_resize=resize, **reading)
            fits = self.channels in (1, 3) and len(self.mean) == len(self.std) == self.channels and min(size, resize, *self.std) > 0
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise DataError("`input` of the student's `model.json` does not say how an image becomes its input")
        self._cut = evaluation_transform(self.view)
        self._normalise = Normalise(self.mean, self.std, torch.device("cpu"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input: channels, height, width."""
        return self.channels, self.view.size, self.view.size

    def pixels(self, picture: Picture) -> Tensor:
        """The part of a picture that the student sees: uint8, `shape`.

        picture: a file, a picture of Pillow, or uint8 pixels: an array (H, W), (H, W, 1) or (H, W, 3), or a tensor (1 or 3, H, W).

        Raises:
            DataError: the file is missing or cannot be decoded. ProfileError: the pixels are not of such a type and shape.
        """
        return self._cut(self._in_channels(self._decoded(picture)))  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels as the network takes them: (B, C, H, W) uint8 → float32."""
        return self._normalise(pixels)

    def __call__(self, picture: Picture) -> Tensor:
        """A picture as the network takes it: float32, `shape`. Takes and raises what `pixels` does."""
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
