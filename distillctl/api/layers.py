"""Layers that several methods put between student and teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""(C, H, W)."""


class LenientBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that also takes one image with a map of 1×1, for which PyTorch's raises an error in training.

    A single value per channel has no variance; it is normalised by the running statistics, which it does not change.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the base class
        """(B, C, H, W) → (B, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def input_of(module: nn.Module, value: Tensor) -> Tensor:
    """A feature as a module with weights can take it: autocast chooses the module's precision, and without it its weights do.

    For the modules of methods with `autocast = True`.
    """
    return value if torch.is_autocast_enabled(value.device.type) else value.to(next(module.parameters()).dtype)


def end_after(model: nn.Module, count: int, stages: Sequence[str], classifier: str, channels: int = 0) -> None:
    """Ends a network after the first `count` of its stages, in place, for the option `stages` of a model.

    The later stages become identities, so that the forward, and the names of all that is left, stay as they are; the classifier, a
    Linear layer that receives the average of the last map, becomes one of the right width, with fresh weights.

    stages: paths of all stages, shallow to deep, each of them reading the output of the one before; classifier: its path. channels: of
    the last map that is left; 0 for those that the first convolution behind it takes.

    Raises:
        ValueError: there are fewer stages.
    """
    if not 0 < count <= len(stages):
        raise ValueError(f"it has {len(stages)} stages, not {count}")
    if count == len(stages):
        return
    channels = channels or next(m.in_channels for m in model.get_submodule(stages[count]).modules() if isinstance(m, nn.Conv2d))
    old = model.get_submodule(classifier)
    assert isinstance(old, nn.Linear)
    for path in stages[count:]:
        model.set_submodule(path, nn.Identity())
    model.set_submodule(classifier, nn.Linear(channels, old.out_features))


def matching_convolution(student: Shape, teacher: Shape) -> nn.Conv2d | nn.ConvTranspose2d:
    """A convolution from maps of the student's shape to those of the teacher's, as FitNet has it; for a normalisation after it.

    | student's map (H_s, W_s), teacher's (H_t, W_t) | convolution |
    | --- | --- |
    | twice as high and wide | 3×3, stride 2, padding 1 |
    | half as high and wide | transposed 4×4, stride 2, padding 1 |
    | at least as high and wide | (1 + H_s − H_t) × (1 + W_s − W_t); 1×1 for equal sizes |
    | anything else | 3×3, padding 1: the map keeps its size, and what is larger has to be pooled |

    It has no bias: the normalisation subtracts the mean of every channel, and with it any bias.
    """
    (channels, height, width), (wanted, to_height, to_width) = student, teacher
    if (height, width) == (2 * to_height, 2 * to_width):
        return nn.Conv2d(channels, wanted, 3, stride=2, padding=1, bias=False)
    if (2 * height, 2 * width) == (to_height, to_width):
        return nn.ConvTranspose2d(channels, wanted, 4, stride=2, padding=1, bias=False)
    if height >= to_height and width >= to_width:
        return nn.Conv2d(channels, wanted, (1 + height - to_height, 1 + width - to_width), bias=False)
    return nn.Conv2d(channels, wanted, 3, padding=1, bias=False)
