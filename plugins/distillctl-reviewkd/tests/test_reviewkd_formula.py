"""The formula of METHODS as plain loops in float64, and what must hold of the hierarchical context loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_reviewkd.losses import context_weights, hcl, review_loss
from distillctl_reviewkd.method import ReviewKD
from distillctl_reviewkd.modules import Fusion
from distillctl_reviewkd.plugin import SPEC

# A batch of maps is a list of images; an image is a list of planes, a plane a list of rows.


def convolve(images: list, conv: nn.Conv2d) -> list:
    """Zero padding, stride 1."""
    weight = conv.weight.tolist()
    bias = [0.0] * len(weight) if conv.bias is None else conv.bias.tolist()
    pad = len(weight[0][0]) // 2
    out = []
    for image in images:
        height, width = len(image[0]), len(image[0][0])
        planes = []
        for kernel, offset in zip(weight, bias, strict=True):
            plane = [[offset] * width for _ in range(height)]
            for i in range(height):
                for j in range(width):
                    for c, taps in enumerate(kernel):
                        for di, row in enumerate(taps):
                            for dj, tap in enumerate(row):
                                y, x = i + di - pad, j + dj - pad
                                if 0 <= y < height and 0 <= x < width:
                                    plane[i][j] += tap * image[c][y][x]
            planes.append(plane)
        out.append(planes)
    return out


def normalise(images: list, norm: nn.BatchNorm2d) -> list:
    """Statistics of the batch, channel by channel."""
    out = [[None] * len(images[0]) for _ in images]
    for c in range(len(images[0])):
        values = [v for image in images for row in image[c] for v in row]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + norm.eps)
        gain, shift = norm.weight[c].item(), norm.bias[c].item()
        for b, image in enumerate(images):
            out[b][c] = [[gain * (v - mean) / deviation + shift for v in row] for row in image[c]]
    return out


def nearest(images: list, height: int, width: int) -> list:
    old_height, old_width = len(images[0][0]), len(images[0][0][0])
    return [
        [[[plane[i * old_height // height][j * old_width // width] for j in range(width)] for i in range(height)] for plane in image]
        for image in images
    ]


def fuse(level: Fusion, images: list, deeper: list | None, height: int, width: int) -> tuple[list, list]:
    x = normalise(convolve(images, level.reduce[0]), level.reduce[1])
    if deeper is not None:
        deeper = nearest(deeper, len(x[0][0]), len(x[0][0][0]))
        gates = convolve([a + b for a, b in zip(x, deeper, strict=True)], level.gates)
        sigmoid = [[[[1 / (1 + math.exp(-v)) for v in row] for row in plane] for plane in image] for image in gates]
        x = [
            [
                [
                    [g * v + h * w for g, v, h, w in zip(*rows, strict=True)]
                    for rows in zip(gate[0], plane, gate[1], other, strict=True)
                ]
                for plane, other in zip(image, below, strict=True)
            ]
            for gate, image, below in zip(sigmoid, x, deeper, strict=True)
        ]  # fmt: skip
    x = nearest(x, height, width)
    return normalise(convolve(x, level.expand[0]), level.expand[1]), x


def average(plane: list, size: int) -> list:
    """Adaptive average pooling to size × size."""
    height, width = len(plane), len(plane[0])
    result = []
    for i in range(size):
        rows = range(i * height // size, -(-(i + 1) * height // size))
        result.append([])
        for j in range(size):
            columns = range(j * width // size, -(-(j + 1) * width // size))
            values = [plane[y][x] for y in rows for x in columns]
            result[-1].append(sum(values) / len(values))
    return result


def mean_square(a: list, b: list) -> float:
    squares = [
        (v - w) ** 2
        for image, other in zip(a, b, strict=True)
        for plane, against in zip(image, other, strict=True)
        for rows in zip(plane, against, strict=True)
        for v, w in zip(*rows, strict=True)
    ]
    return sum(squares) / len(squares)


def hcl_by_loops(a: list, b: list) -> float:
    height = len(a[0][0])
    loss, weight, total = mean_square(a, b), 1.0, 1.0
    for size in (4, 2, 1):
        if size >= height:
            continue
        weight /= 2
        pooled = [[[average(plane, size) for plane in image] for image in images] for images in (a, b)]
        loss += weight * mean_square(*pooled)
        total += weight
    return loss / total


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def perturbed(method: ReviewKD) -> ReviewKD:
    """The method in float64, with gains and shifts that are not 1 and 0."""
    draw = torch.Generator().manual_seed(7)
    for parameter in method.double().parameters():
        with torch.no_grad():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=draw)
    return method


@pytest.mark.parametrize("mid_channels", [512, 2])
def test_loss_is_the_formula(mid_channels: int) -> None:
    ours = {"stage1": (2, 4, 4), "stage2": (3, 3, 3), "pooled": (4,)}
    theirs = {"stage1": (3, 6, 6), "stage2": (2, 2, 2), "pooled": (5,)}
    setup = make_setup(ours, theirs)
    torch.manual_seed(0)
    method = perturbed(ReviewKD(options_of(SPEC, teacher_stages=["stages"], mid_channels=mid_channels), setup))
    student = {name: random(2, *shape, seed=k) for k, (name, shape) in enumerate(ours.items())}
    teacher = {name: random(2, *shape, seed=9 + k) for k, (name, shape) in enumerate(theirs.items())}

    value = method(make_batch(setup, 2), student, teacher, make_progress())

    expected, deeper = 0.0, None
    for k, name in ((2, "pooled"), (1, "stage2"), (0, "stage1")):
        level = method.review.levels[k]
        assert isinstance(level, Fusion)
        source, target = student[name], teacher[name]
        if name == "pooled":
            source, target = source.reshape(2, -1, 1, 1), target.reshape(2, -1, 1, 1)
        output, deeper = fuse(level, source.tolist(), deeper, *target.shape[2:])
        assert len(deeper[0]) == min(mid_channels, 4)
        expected += hcl_by_loops(output, target.tolist())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_loss_on_the_levels_of_a_pyramid_is_the_formula() -> None:
    """Five levels of one width, each half as large as the one before, and no pooled vector, as a detector has them."""
    levels = {f"p{k + 2}": (3, 16 >> k, 16 >> k) for k in range(5)}
    setup = make_setup(levels, levels)
    torch.manual_seed(0)
    options = options_of(SPEC, student_stages=list(levels), teacher_stages=list(levels), pooled=False, mid_channels=2)
    method = perturbed(ReviewKD(options, setup))
    student, teacher = ({name: random(2, *shape, seed=side + k) for k, (name, shape) in enumerate(levels.items())} for side in (0, 9))

    value = method(make_batch(setup, 2), student, teacher, make_progress())

    expected, deeper = 0.0, None
    for level, name in reversed(list(zip(method.review.levels, levels, strict=True))):
        output, deeper = fuse(level, student[name].tolist(), deeper, *levels[name][1:])
        expected += hcl_by_loops(output, teacher[name].tolist())
    assert value.item() == pytest.approx(expected, rel=1e-12)


# -- the hierarchical context loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_hcl_is_the_formula(size: int) -> None:
    a, b = random(3, 2, size, size, seed=0), random(3, 2, size, size, seed=1)
    assert hcl(a, b).item() == pytest.approx(hcl_by_loops(a.tolist(), b.tolist()), rel=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "whole", "coarse"),
    [
        (1, 1, 1, {}),
        (2, 2, 1 / 1.5, {1: 0.5 / 1.5}),
        (4, 4, 1 / 1.75, {2: 0.5 / 1.75, 1: 0.25 / 1.75}),
        (8, 8, 1 / 1.875, {4: 0.5 / 1.875, 2: 0.25 / 1.875, 1: 0.125 / 1.875}),
        (3, 9, 1 / 1.75, {2: 0.5 / 1.75, 1: 0.25 / 1.75}),
    ],
)
def test_weights_of_the_scales(height: int, width: int, whole: float, coarse: dict[int, float]) -> None:
    found = context_weights(height, width)
    assert found[0] == pytest.approx(whole)
    assert found[1] == pytest.approx(coarse)
    assert list(found[1]) == list(coarse)
    assert found[0] + sum(found[1].values()) == pytest.approx(1.0)


def test_weights_are_normalised_so_that_a_constant_difference_is_its_square() -> None:
    """At every scale a difference of 3 is 3; a checkerboard is seen by the whole map alone."""
    value = random(2, 3, 8, 8, seed=0)
    assert hcl(value + 3, value).item() == pytest.approx(9.0)
    signs = torch.ones(8, 8, dtype=torch.float64)
    signs[::2, ::2] = signs[1::2, 1::2] = -1
    assert hcl(value + 3 * signs, value).item() == pytest.approx(9.0 / 1.875)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_zero_value_and_gradient_at_equality(size: int) -> None:
    teacher = random(2, 3, size, size, seed=0)
    student = teacher.clone().requires_grad_()
    loss = hcl(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_hcl_is_symmetric_and_quadratic() -> None:
    a, b = random(2, 3, 5, 6, seed=0), random(2, 3, 5, 6, seed=1)
    assert hcl(a, b).item() == pytest.approx(hcl(b, a).item(), rel=1e-12)
    assert hcl(3 * a, 3 * b).item() == pytest.approx(9 * hcl(a, b).item(), rel=1e-12)


def test_levels_are_summed() -> None:
    pairs = [(random(2, 3, size, size, seed=size), random(2, 3, size, size, seed=10 + size)) for size in (4, 2, 1)]
    total = review_loss([a for a, _ in pairs], [b for _, b in pairs])
    assert total.shape == ()
    assert total.item() == pytest.approx(sum(hcl(a, b).item() for a, b in pairs), rel=1e-12)
