"""Regions of a map, the losses ℓ of one region's logits, and the loss over all regions.

ℓ is KD, DKD or NKD without a reduction, in float32 and exact however sure a network is. Its logits are (N, C), its labels (N,), its
results (N,) with their T². A temperature is a number, a 0-dim tensor or (N, 1). With u = z/T, g the target class and ℓ_g the logsumexp of
u over all other classes: log q_i = u_i − ℓ_g for i ≠ g, log p_g = logσ(u_g − ℓ_g) and log(1 − p_g) = logσ(ℓ_g − u_g).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import is_target, kl_divergence, other_divergence, others, pool_average, split_target, target_divergence

Rows = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]
"""Logits of student and teacher (N, C), labels (N,) and a temperature → the loss of each row, (N,)."""


def regional_vectors(maps: Tensor, pooled: Tensor, scales: Sequence[int]) -> Tensor:
    """What the classifier is given for each region, (B, R, d), R = Σ s²; the whole map comes first.

    maps: (B, d, H, W); pooled: (B, d), their average as the classifier receives it, which is scale 1; scales: with 1, each a
    divisor of the largest. The finest grid is averaged from the map, and the coarser ones from the finest.
    """
    vectors = [pooled.unsqueeze(1)]
    local = sorted(scales, reverse=True)[:-1]
    if local:
        finest = pool_average(maps, (local[0], local[0]))
        vectors += [(finest if scale == local[0] else pool_average(finest, (scale, scale))).flatten(2).mT for scale in local]
    return torch.cat(vectors, 1)


def is_complementary(teacher: Tensor, labels: Tensor) -> Tensor:
    """(B, R), true where the teacher is right on the region or on the whole map, the first region, but not on both."""
    right = teacher.argmax(-1) == labels.unsqueeze(1)
    return right != right[:, :1]


def sdd_parts(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, rows: Rows) -> tuple[Tensor, Tensor]:
    """Σ ℓ / (B·R) over the consistent and over the complementary regions, both 0-dim and without their weights.

    student, teacher: regional logits (B, R, C), the whole map first; labels: (B,); temperature: a number, a 0-dim tensor or (B, 1).
    Nothing that is not finite is replaced: it makes one of the two parts infinite or NaN.
    """
    size, regions, _ = teacher.shape
    if isinstance(temperature, Tensor) and temperature.ndim:
        temperature = temperature.expand(size, regions).reshape(-1, 1)
    repeated = labels.unsqueeze(1).expand(size, regions).flatten()
    losses = rows(student.flatten(0, 1), teacher.flatten(0, 1), repeated, temperature).unflatten(0, (size, regions))
    complementary = is_complementary(teacher, labels)
    return losses.masked_fill(complementary, 0.0).mean(), losses.masked_fill(~complementary, 0.0).mean()


def sdd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, rows: Rows, complementary_weight: float = 2.0
) -> Tensor:
    """Σ w·ℓ / (B·R), 0-dim; w is `complementary_weight` for complementary regions and 1 for all others. Arguments as in `sdd_parts`."""
    consistent, complementary = sdd_parts(student, teacher, labels, temperature, rows)
    return consistent + complementary_weight * complementary


def kd_rows(student: Tensor, teacher: Tensor, _labels: Tensor, temperature: Tensor | float) -> Tensor:
    """T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)). Hinton et al. 2015, arXiv 1503.02531. The labels play no part."""
    log_s, log_t = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return _times_square(kl_divergence(log_t, log_s), temperature)


def dkd_rows(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, *, alpha: float, beta: float) -> Tensor:
    """T² · (α · KL(b_t ‖ b_s) + β · KL(q_t ‖ q_s)), b = (p_g, 1 − p_g). Zhao et al. 2022, arXiv 2203.08679."""
    target = is_target(labels, student.shape[1])
    gap_s, log_q_s = split_target(student / temperature, target)
    gap_t, log_q_t = split_target(teacher / temperature, target)
    rows = torch.zeros_like(gap_s)
    if alpha:
        rows = rows + alpha * target_divergence(gap_s, gap_t)
    if beta:
        rows = rows + beta * other_divergence(log_q_s, log_q_t, target)
    return _times_square(rows, temperature)


def nkd_rows(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, *, gamma: float) -> Tensor:
    """−p_t,g · log p_s,g at temperature 1, and −γ · T² · Σ_{i≠g} q_t,i · log q_s,i. Yang et al. 2023, arXiv 2303.13005."""
    column = labels.unsqueeze(1)
    rows = -(teacher.softmax(1).gather(1, column) * F.log_softmax(student, dim=1).gather(1, column)).squeeze(1)
    if not gamma:
        return rows
    target = is_target(labels, student.shape[1])
    _, log_q_s = split_target(student / temperature, target)
    _, log_q_t = split_target(teacher / temperature, target)
    return rows - gamma * _times_square((others(log_q_t, target) * log_q_s).sum(1), temperature)


def _times_square(rows: Tensor, temperature: Tensor | float) -> Tensor:
    # One column, so that a factor of shape () or (N, 1) fits alike.
    return (rows.unsqueeze(1) * temperature**2).squeeze(1)
