"""Students for these tests, by the names `speckled` and `idle`. The workers import this module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import ModelSpec, Options
from distillctl.testing.tiny_models import TinyCNN

_STAGES = {
    "stem": "stem",
    **{key: path for k in (1, 2, 3) for key, path in ((f"stage{k}", f"stage{k}"), (f"stage{k}:pre", f"stage{k}.1"))},
}


class Speckled(TinyCNN):
    """Scales what its classifier receives by numbers that depend on the image, and on how often that image stood in the batch before.

    So two passes over the same images differ, as with dropout, but not with the way in which a batch is cut.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        pooled = F.adaptive_avg_pool2d(self.stage3(self.stage2(self.stage1(self.stem(images)))), 1).flatten(1)
        if self.training:
            same = (images.unsqueeze(1) == images.unsqueeze(0)).flatten(2).all(2)
            before = same.tril(-1).sum(1, keepdim=True)
            phases = torch.arange(pooled.shape[1], device=images.device) + images.mean((1, 2, 3)).unsqueeze(1)
            pooled = pooled * (1 + 0.5 * torch.sin(phases * (1 + before)))
        logits: Tensor = self.fc(pooled)
        return logits


class Idle(TinyCNN):
    """Has a branch that no loss reaches."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.idle = nn.Linear(4, 4)


def build(name: str, num_classes: int, options: Options | None = None) -> nn.Module:
    """Builds either of them."""
    return (Speckled if name == "speckled" else Idle)(num_classes)


MODELS = tuple(
    ModelSpec(name=name, summary="for tests", implementation="models:build", stages=_STAGES, classifier="fc", input_size=8)
    for name in ("speckled", "idle")
)
