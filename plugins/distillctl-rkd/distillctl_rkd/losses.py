"""The two parts of the loss from the features of both sides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SHORTEST = 1e-12  # of a difference of two samples that has a direction


def distance_loss(student: Tensor, teacher: Tensor, *, squared: bool = False, eps: float = 1e-12) -> Tensor:
    """Mean over B² of SmoothL1 of the relative distances of both sides, 0-dim; 0 for a batch of one sample.

    student, teacher: features (B, …), of any two shapes behind the batch dimension.
    """
    if len(student) < 2:
        return student.sum() * 0
    return F.smooth_l1_loss(relative_distances(student, squared, eps), relative_distances(teacher, squared, eps))


def angle_loss(student: Tensor, teacher: Tensor, *, chunk: int = 0) -> Tensor:
    """Mean over B³ of SmoothL1 of the cosines of the angles of both sides, 0-dim; 0 for a batch of one sample.

    student, teacher: features (B, …), of any two shapes behind the batch dimension.
    chunk: number of vertices at once. Above 0, the backward pass computes their cosines a second time instead of keeping them.
    """
    size = len(student)
    if size < 2:
        return student.sum() * 0
    ours, theirs = student.flatten(1), teacher.flatten(1)
    total = ours.new_zeros(())
    for start in range(0, size, chunk or size):
        vertices = slice(start, start + (chunk or size))
        arguments = (ours[vertices], ours, theirs[vertices], theirs)
        if chunk:
            total = total + checkpoint(_summed_angle_errors, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + _summed_angle_errors(*arguments)
    return total / size**3


def relative_distances(features: Tensor, squared: bool = False, eps: float = 1e-12) -> Tensor:
    """Euclidean distances of features (B, …), flattened, divided by their mean over all pairs of two samples: (B, B), diagonal 0.

    squared: takes the squares of the distances. eps: lower bound of the squares, off the diagonal.
    """
    rows = features.flatten(1)
    size = len(rows)
    # Distances do not know the origin, and the differences below lose fewest digits where it is the centre.
    rows = rows - rows.mean(0)
    squares = rows.square().sum(1)
    distances = (squares.unsqueeze(1) + squares - 2 * rows @ rows.T).clamp_min(eps)
    if not squared:
        distances = distances.sqrt()
    distances = distances.masked_fill(torch.eye(size, dtype=torch.bool, device=rows.device), 0.0)
    return distances * (size * (size - 1) / distances.sum())


def angle_cosines(vertices: Tensor, rows: Tensor) -> Tensor:
    """⟨e_ij, e_ik⟩ with e_ij the direction from v_j to u_i: (n, B, B) from u (n, d) and v (B, d); 0 where u_i = v_j or u_i = v_k."""
    differences = vertices.unsqueeze(1) - rows  # (n, B, d)
    squares = differences.square().sum(2, keepdim=True)
    directions = differences * torch.where(squares > _SHORTEST**2, squares, torch.inf).rsqrt()
    return directions @ directions.mT


def _summed_angle_errors(student_vertices: Tensor, student: Tensor, teacher_vertices: Tensor, teacher: Tensor) -> Tensor:
    ours, theirs = angle_cosines(student_vertices, student), angle_cosines(teacher_vertices, teacher)
    return F.smooth_l1_loss(ours, theirs, reduction="sum")
