"""Networks of a few thousand parameters for tests: two convolutional ones that differ in shape, and one on tokens.

They take square RGB images of any size from 8 pixels that is a multiple of 2, and are declared like the models of a plugin.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec


class TinyOptions(Options):
    """Options of the tiny models."""

    width: Annotated[int, Field(ge=1)] = 8
    """Channels of the first stage; the others are multiples of it."""


class TinyCNN(nn.Module):
    """Stem and three stages of conv, BN, ReLU with widths w, 2w, 4w; (B, 3, H, W) → (B, num_classes)."""

    def __init__(self, num_classes: int, width: int = 8, strides: tuple[int, int, int] = (1, 2, 2)) -> None:
        super().__init__()
        self.stem = _layer(3, width, 1)
        self.stage1 = _layer(width, width, strides[0])
        self.stage2 = _layer(width, 2 * width, strides[1])
        self.stage3 = _layer(2 * width, 4 * width, strides[2])
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class TinyBlock(nn.Module):
    """One transformer block with a single head; (B, N, C) → (B, N, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attention and a small perceptron, each added to what came in."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q, k, v)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class TinyViT(nn.Module):
    """Patches of 2×2 pixels, a class token, two blocks of width 2w, no positions; (B, 3, H, W) → (B, num_classes)."""

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 2 * width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 2 * width) * 0.02)
        self.blocks = nn.ModuleList(TinyBlock(2 * width) for _ in range(2))
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, from the class token."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def build_tiny(name: str, num_classes: int, options: Options | None = None) -> nn.Module:
    """Builds `tiny_cnn`, `tiny_wide` (widths times 1.5, its maps twice as large at stages 2 and 3) or `tiny_vit`."""
    width = options.width if isinstance(options, TinyOptions) else TinyOptions().width
    if name == "tiny_wide":
        return TinyCNN(num_classes, width + width // 2, strides=(1, 1, 2))
    return TinyViT(num_classes, width) if name == "tiny_vit" else TinyCNN(num_classes, width)


_CNN_STAGES = {
    "stem": "stem",
    **{key: path for k in (1, 2, 3) for key, path in ((f"stage{k}", f"stage{k}"), (f"stage{k}:pre", f"stage{k}.1"))},
}


def _spec(name: str, summary: str, stages: dict[str, str], classifier: str, parameters: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        summary=summary,
        implementation="distillctl.testing.tiny_models:build_tiny",
        options="distillctl.testing.tiny_models:TinyOptions",
        stages=stages,
        classifier=classifier,
        input_size=8,
        parameters=parameters,
        classes=10,
    )


TINY_CNN = _spec("tiny_cnn", "three convolutional stages, for tests", _CNN_STAGES, "fc", 7010)
TINY_WIDE = _spec("tiny_wide", "three wider convolutional stages, for tests", _CNN_STAGES, "fc", 15_262)
_VIT_STAGES = {"stem": "patch", "stage1": "blocks.0:tokens", "stage2": "blocks.1:tokens"}
TINY_VIT = _spec("tiny_vit", "two transformer blocks, for tests", _VIT_STAGES, "head", 4330)
TINY_MODELS = (TINY_CNN, TINY_WIDE, TINY_VIT)
