"""How an image file becomes a view, in training and in evaluation: torchvision v2 transforms of uint8 tensors.

| `augment` | training view |
| --- | --- |
| `none` | as in evaluation: short side to `eval_resize`, centre crop |
| `resize_crop` | short side to `resize`, random crop |
| `crop_flip` | the same, then a flip with probability 1/2 |
| `random_resized_crop` | 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3, resized (Szegedy et al. 2015), then a flip |
| `autoaugment` | as `resize_crop`, then AutoAugment's ImageNet policy (Cubuk et al. 2019, arXiv 1805.09501); no flip |
| `randaugment` | as `crop_flip`, then RandAugment, 2 operations of magnitude 9 (Cubuk et al. 2020, arXiv 1909.13719) |
| `trivialaugment` | as `random_resized_crop`, then TrivialAugment's wide space (Müller, Hutter 2021, arXiv 2103.10158) |
| `augmix` | as `random_resized_crop`, then AugMix, 3 chains of severity 3 (Hendrycks et al. 2020, arXiv 1912.02781) |

`rotation` turns whatever comes out, by torchvision's `RandomRotation` with its defaults (nearest pixel, black corners).

The four policies work on Pillow images, as published, which is also faster than on tensors. All draw from torch's global
generator, which the loader seeds for every image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2  # type: ignore[import-untyped]

from distillctl.api.data import View


def short_side(view: View) -> int:
    """Length in pixels of the short side after the first step of a training view that begins with a resize."""
    return (view.eval_resize if view.augment == "none" else view.resize) or view.size


def training_transform(view: View) -> nn.Module:
    """uint8 (3, H, W) → uint8 (3, size, size), at random."""
    return nn.Sequential(_cut(view), v2.RandomRotation(view.rotation)) if view.rotation else _cut(view)


def _cut(view: View) -> nn.Module:
    crop = [v2.Resize(view.resize or view.size, antialias=True), v2.RandomCrop(view.size)]
    zoom, flip = v2.RandomResizedCrop(view.size, antialias=True), v2.RandomHorizontalFlip()
    match view.augment:
        case "none":
            return evaluation_transform(view)
        case "resize_crop":
            return nn.Sequential(*crop)
        case "crop_flip":
            return nn.Sequential(*crop, flip)
        case "random_resized_crop":
            return nn.Sequential(zoom, flip)
        case "autoaugment":
            return nn.Sequential(*crop, *_on_pillow(v2.AutoAugment()))
        case "randaugment":
            return nn.Sequential(*crop, flip, *_on_pillow(v2.RandAugment()))
        case "trivialaugment":
            return nn.Sequential(zoom, flip, *_on_pillow(v2.TrivialAugmentWide()))
        case "augmix":
            return nn.Sequential(zoom, flip, *_on_pillow(v2.AugMix()))


def evaluation_transform(view: View) -> nn.Module:
    """uint8 (3, H, W) → uint8 (3, size, size), always the same."""
    return nn.Sequential(v2.Resize(view.eval_resize or view.size, antialias=True), v2.CenterCrop(view.size))


def five_crop_transform(view: View, resize: int) -> nn.Module:
    """uint8 (3, H, W) → uint8 (5, 3, size, size): four corners and the centre. resize: as for `ten_crop_transform`."""
    return nn.Sequential(v2.Resize(_before_crops(view, resize), antialias=True), v2.FiveCrop(view.size), _Stack())


def ten_crop_transform(view: View, resize: int) -> nn.Module:
    """uint8 (3, H, W) → uint8 (10, 3, size, size): four corners and the centre, and the same of the mirror image.

    resize: length of the short side before; 0 means 1.1 times the crop.
    """
    return nn.Sequential(v2.Resize(_before_crops(view, resize), antialias=True), v2.TenCrop(view.size), _Stack())


def _before_crops(view: View, resize: int) -> int:
    return resize or round(1.1 * view.size)


class _Stack(nn.Module):
    def forward(self, views: tuple[Tensor, ...]) -> Tensor:
        return torch.stack(views)


def _on_pillow(policy: nn.Module) -> list[nn.Module]:
    return [v2.ToPILImage(), policy, v2.PILToTensor()]
