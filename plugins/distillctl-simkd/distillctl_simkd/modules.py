"""What the student's head is made of: a trained projector, and the teacher's classifier, which stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl import RunError, Side

_TOLERANCE = 1e-3


def projector(channels: int, teacher_channels: int, reduction: int) -> nn.Module:
    """The student's map (B, C_s, H, W) → a map like the teacher's, (B, C_t, H, W).

    Convolutions 1×1 C_s → C_t/f, 3×3 C_t/f → C_t/f, 1×1 C_t/f → C_t without biases, each with batch normalisation and ReLU.
    """
    inner = max(1, teacher_channels // reduction)
    layers = nn.Sequential()
    for inputs, outputs, size in ((channels, inner, 1), (inner, inner, 3), (inner, teacher_channels, 1)):
        layers.append(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False))
        layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return layers


def reused_classifier(teacher: Side, stage: str) -> nn.Linear:
    """A frozen copy of the teacher's classifier.

    Raises:
        RunError: it is not a Linear layer, or does not receive the average of the map `stage`.
    """
    linear = teacher.classifier
    if not isinstance(linear, nn.Linear):
        what = f"is {type(linear).__name__}" if linear is not None else "is not declared"
        raise RunError(
            f"`simkd` reuses the teacher's classifier, which must be a Linear layer, but that of `{teacher.name}` {what}",
            hint="take a teacher that ends in global average pooling and one Linear layer, such as a ResNet",
        )
    average, pooled = teacher.sample[stage].mean((2, 3)), teacher.sample["pooled"].flatten(1)
    if not _agree(average, pooled):
        raise RunError(
            f"`simkd` needs a teacher's map whose average the classifier receives, but that of `{stage}` {teacher.shapes[stage]} of "
            f"`{teacher.name}` is not `pooled` {teacher.shapes['pooled']}",
            hint="name the map in front of the global average pooling in `teacher_stage`, or take a teacher that has one, such as a ResNet",
        )
    # Not a deep copy: that would copy the hooks by which the teacher's features are taken.
    copy: nn.Linear = nn.utils.skip_init(nn.Linear, linear.in_features, linear.out_features, bias=linear.bias is not None)
    copy.load_state_dict(linear.state_dict())
    copy.requires_grad_(False)
    return copy


def _agree(average: Tensor, pooled: Tensor) -> bool:
    if average.shape != pooled.shape:
        return False
    return bool(torch.allclose(average, pooled, rtol=_TOLERANCE, atol=_TOLERANCE * float(pooled.abs().max())))
