"""`kdsvd` against its definition in plain Python loops around a solver for singular values, and what must hold of it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import distillctl_kdsvd.losses
from distillctl_kdsvd.losses import kdsvd_loss, main_vectors, right_singular_vectors

CHANNELS = ((5, 4, 3), (4, 3, 2), (6, 2, 2))  # (C, H, W): one matrix with more positions than channels, one with fewer
WIDTHS = ((3, 2, 6), (5, 2, 4), (4, 3, 5))


def stages(shapes: tuple[tuple[int, int, int], ...], seed: int, batch: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def rows_of(image: list, variant: str) -> list[list[float]]:
    """One image (C, H, W) as nested lists."""
    if variant == "width":
        return [line for plane in image for line in plane]
    return [[plane[i][j] for plane in image] for i in range(len(image[0])) for j in range(len(image[0][0]))]


def decompose(image: Tensor, variant: str, count: int) -> tuple[list[list[float]], list[float]]:
    """The main right singular vectors of an image and the singular values, divided by their norm over the `count`."""
    _, values, vectors = torch.linalg.svd(torch.tensor(rows_of(image.tolist(), variant), dtype=torch.float64), full_matrices=False)
    kept = values[:count].tolist()
    norm = math.sqrt(sum(value**2 for value in kept))
    return vectors[:count].tolist(), [value / norm for value in kept]


def vectors_by_loops(student: Tensor, teacher: Tensor, variant: str, k: int) -> tuple[list[list[float]], list[list[float]]]:
    """k vectors of one stage and one image, of either side."""
    (ours, _), (theirs, values) = decompose(student, variant, k + 3), decompose(teacher, variant, k)
    result: tuple[list[list[float]], list[list[float]]] = [], []
    for vector, value in zip(theirs, values, strict=True):
        vector = [entry if sum(vector) >= 0 else -entry for entry in vector]
        cosine, match = max(((sum(a * b for a, b in zip(v, vector, strict=True)), v) for v in ours), key=lambda pair: abs(pair[0]))
        result[0].append([math.copysign(value, cosine) * entry for entry in match])
        result[1].append([value * entry for entry in vector])
    return result


def kdsvd_by_loops(student: list[Tensor], teacher: list[Tensor], variant: str, k: int) -> float:
    total = 0.0
    for b in range(len(student[0])):
        pairs = [vectors_by_loops(s[b], t[b], variant, k) for s, t in zip(student, teacher, strict=True)]
        for (shallow_s, shallow_t), (deep_s, deep_t) in pairwise(pairs):
            for v_s, u_s, v_t, u_t in zip(deep_s, shallow_s, deep_t, shallow_t, strict=True):
                for i in range(len(v_s)):
                    for j in range(len(u_s)):
                        total += (math.exp(-((v_s[i] - u_s[j]) ** 2) / 8) - math.exp(-((v_t[i] - u_t[j]) ** 2) / 8)) ** 2
    return total / len(student[0])


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize(("variant", "shapes"), [("channels", CHANNELS), ("width", WIDTHS)])
def test_formula(variant: str, shapes: tuple[tuple[int, int, int], ...], k: int) -> None:
    student, teacher = stages(shapes, 0), stages(shapes, 1)
    value = kdsvd_loss(student, teacher, variant=variant, vectors=k)
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert value.item() == pytest.approx(kdsvd_by_loops(student, teacher, variant, k), rel=1e-9)


def test_width_takes_sides_with_other_channels() -> None:
    student, teacher = stages(WIDTHS, 0), stages(tuple((c + 2, h, w) for c, h, w in WIDTHS), 1)
    value = kdsvd_loss(student, teacher, variant="width").item()
    assert value == pytest.approx(kdsvd_by_loops(student, teacher, "width", 1), rel=1e-9)


def test_d07_the_variants_decompose_different_matrices() -> None:
    """The peers' values of one name differ by orders of magnitude; here each has its own reference, and the default is the paper's."""
    student, teacher = stages(CHANNELS, 0), stages(CHANNELS, 1)
    by_channels, by_width = (kdsvd_by_loops(student, teacher, variant, 1) for variant in ("channels", "width"))
    assert by_channels != pytest.approx(by_width, rel=0.1)
    assert kdsvd_loss(student, teacher).item() == pytest.approx(by_channels, rel=1e-9)
    assert kdsvd_loss(student, teacher, variant="width").item() == pytest.approx(by_width, rel=1e-9)


def of_vector(*entries: float) -> Tensor:
    """A map of rank 1, (1, C, 1, 2), with this vector over the channels."""
    return torch.tensor(entries, dtype=torch.float64).reshape(1, -1, 1, 1) * torch.tensor([1.0, 2.0], dtype=torch.float64)


def test_value_by_hand() -> None:
    student = [of_vector(8, 6), of_vector(3, 4)]  # (0.8, 0.6), then (0.6, 0.8)
    teacher = [of_vector(5, 0), of_vector(-3, -4)]  # (1, 0), then (0.6, 0.8) after its sign is settled
    differences = [(-0.2, -0.4), (0.0, 0.6), (0.0, -0.2), (0.2, 0.8)]  # of entries, student's and teacher's
    expected = sum((math.exp(-(a**2) / 8) - math.exp(-(b**2) / 8)) ** 2 for a, b in differences)
    assert kdsvd_loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_every_pair_of_consecutive_stages_counts() -> None:
    student, teacher = stages(CHANNELS, 0), stages(CHANNELS, 1)
    parts = [kdsvd_loss(student[i : i + 2], teacher[i : i + 2]).item() for i in range(2)]
    assert kdsvd_loss(student, teacher).item() == pytest.approx(sum(parts), rel=1e-12)


@pytest.mark.parametrize("variant", ["channels", "width"])
@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_larger_map_is_average_pooled(larger: str, variant: str) -> None:
    big, small = stages(((4, 6, 4), (3, 4, 4)), 0), stages(((4, 3, 2), (3, 2, 2)), 1)
    pooled = [m.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) for m in big]
    sides, expected = ((big, small), (pooled, small)) if larger == "student" else ((small, big), (small, pooled))
    assert kdsvd_loss(*sides, variant=variant).item() == pytest.approx(kdsvd_by_loops(*expected, variant, 1), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_zero_value_and_gradient_at_equality(k: int) -> None:
    teacher = stages(CHANNELS, 0)
    student = [m.clone().requires_grad_() for m in teacher]
    value = kdsvd_loss(student, teacher, vectors=k)
    value.backward()
    assert value.item() < 1e-20
    assert all(m.grad.abs().max() < 1e-9 for m in student)


@pytest.mark.parametrize("k", [1, 2])
def test_signs_of_singular_vectors_do_not_matter(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Solvers return either sign; the value must not depend on it, neither on the student's nor on the teacher's."""
    student, teacher = stages(CHANNELS, 0), stages(CHANNELS, 1)
    value = kdsvd_loss(student, teacher, vectors=k).item()
    generator = torch.Generator().manual_seed(2)

    def flipped(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
        vectors, values = right_singular_vectors(matrix, count)
        return vectors * (torch.randint(2, (len(vectors), 1, count), generator=generator) * 2 - 1), values

    monkeypatch.setattr(distillctl_kdsvd.losses, "right_singular_vectors", flipped)
    for _ in range(5):
        assert kdsvd_loss(student, teacher, vectors=k).item() == pytest.approx(value, rel=1e-12)


def test_one_vector_has_the_singular_value_1() -> None:
    _, theirs = main_vectors(*stages((CHANNELS[0],) * 2, 0), "channels", 1)
    torch.testing.assert_close(torch.linalg.vector_norm(theirs, dim=1), torch.ones(3, 1, dtype=torch.float64))
    _, theirs = main_vectors(*stages((CHANNELS[0],) * 2, 0), "channels", 3)
    lengths = torch.linalg.vector_norm(theirs, dim=1)
    torch.testing.assert_close(lengths.square().sum(1), torch.ones(3, dtype=torch.float64))
    assert (lengths[:, :-1] > lengths[:, 1:]).all()


def test_scale_and_order_of_positions_do_not_matter() -> None:
    student, teacher = stages(CHANNELS, 0), stages(CHANNELS, 1)
    value = kdsvd_loss(student, teacher, vectors=2).item()
    scales = torch.tensor([1e-4, -3.0, 1e6], dtype=torch.float64).reshape(3, 1, 1, 1)
    assert kdsvd_loss([m * scales for m in student], teacher, vectors=2).item() == pytest.approx(value, rel=1e-9)
    assert kdsvd_loss(student, [m * scales for m in teacher], vectors=2).item() == pytest.approx(value, rel=1e-9)
    assert kdsvd_loss([m.flip(2, 3) for m in student], teacher, vectors=2).item() == pytest.approx(value, rel=1e-9)
    assert kdsvd_loss([m.flip(1) for m in student], teacher, vectors=2).item() != pytest.approx(value, rel=1e-3)
