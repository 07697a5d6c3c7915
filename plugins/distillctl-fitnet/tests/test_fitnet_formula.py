"""`fitnet` against its definition in plain Python loops, for every row of the regressor's table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_fitnet.losses import hint_loss
from distillctl_fitnet.method import FitNet
from distillctl_fitnet.plugin import SPEC

B, STUDENT_CHANNELS, CHANNELS = 3, 2, 3


def planes(height: int, width: int) -> list[list[float]]:
    return [[0.0] * width for _ in range(height)]


def convolve(image: list, weight: list, stride: int, pad: int) -> list:
    """One image [C][H][W], weight [out][in][kh][kw]."""
    rows, columns = len(weight[0][0]), len(weight[0][0][0])
    height, width = len(image[0]), len(image[0][0])
    out = [planes((height + 2 * pad - rows) // stride + 1, (width + 2 * pad - columns) // stride + 1) for _ in weight]
    for o, kernel in enumerate(weight):
        for i in range(len(out[o])):
            for j in range(len(out[o][0])):
                for c, taps in enumerate(kernel):
                    for di in range(rows):
                        for dj in range(columns):
                            y, x = i * stride - pad + di, j * stride - pad + dj
                            if 0 <= y < height and 0 <= x < width:
                                out[o][i][j] += taps[di][dj] * image[c][y][x]
    return out


def convolve_transposed(image: list, weight: list, stride: int, pad: int) -> list:
    """One image [C][H][W], weight [in][out][k][k]: every value is spread over the output."""
    size = len(weight[0][0])
    height, width = len(image[0]), len(image[0][0])
    out = [planes((height - 1) * stride - 2 * pad + size, (width - 1) * stride - 2 * pad + size) for _ in weight[0]]
    for c, kernels in enumerate(weight):
        for i in range(height):
            for j in range(width):
                for o, taps in enumerate(kernels):
                    for di in range(size):
                        for dj in range(size):
                            y, x = i * stride - pad + di, j * stride - pad + dj
                            if 0 <= y < len(out[o]) and 0 <= x < len(out[o][0]):
                                out[o][y][x] += taps[di][dj] * image[c][i][j]
    return out


def normalise(images: list, scale: list[float], shift: list[float], eps: float) -> list:
    for c in range(len(scale)):
        values = [v for image in images for row in image[c] for v in row]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values) + eps) ** 0.5
        for image in images:
            image[c] = [[(v - mean) / deviation * scale[c] + shift[c] for v in row] for row in image[c]]
    return images


def pool(plane: list, height: int, width: int) -> list:
    """To a size that divides the plane's."""
    tall, wide = len(plane) // height, len(plane[0]) // width
    return [
        [sum(plane[i * tall + a][j * wide + b] for a in range(tall) for b in range(wide)) / (tall * wide) for j in range(width)]
        for i in range(height)
    ]


TABLE = {  # student's and teacher's size, and what METHODS says: kernel, stride, padding, transposed
    "half": ((4, 6), (2, 3), (3, 3), 2, 1, False),
    "double": ((2, 3), (4, 6), (4, 4), 2, 1, True),
    "equal": ((3, 4), (3, 4), (1, 1), 1, 0, False),
    "somewhat larger": ((5, 4), (3, 3), (3, 2), 1, 0, False),
    "four times as large": ((8, 8), (2, 2), (7, 7), 1, 0, False),
    "third": ((2, 2), (6, 6), (3, 3), 1, 1, False),
    "half one way, double the other": ((4, 2), (2, 4), (3, 3), 1, 1, False),
}


def build(student: tuple[int, int], teacher: tuple[int, int], activation: str) -> FitNet:
    setup = make_setup({"stage2": (STUDENT_CHANNELS, *student)}, {"stage2": (CHANNELS, *teacher)})
    torch.manual_seed(0)
    method = FitNet(options_of(SPEC, activation=activation), setup).double()
    nn.init.normal_(method.regressor.norm.weight)
    nn.init.normal_(method.regressor.norm.bias)
    return method


def features(student: tuple[int, int], teacher: tuple[int, int]) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(B, STUDENT_CHANNELS, *student, dtype=torch.float64, generator=draw),
        torch.randn(B, CHANNELS, *teacher, dtype=torch.float64, generator=draw),
    )


def loss_of(method: FitNet, student: Tensor, teacher: Tensor) -> Tensor:
    batch = make_batch(make_setup({}, {}), len(student))
    return method.terms(batch, {"stage2": student}, {"stage2": teacher}, make_progress())[""]


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("row", TABLE)
def test_formula(row: str, activation: str) -> None:
    ours, theirs, kernel, stride, pad, transposed = TABLE[row]
    method = build(ours, theirs, activation)
    student, teacher = features(ours, theirs)
    conv, norm = method.regressor.conv, method.regressor.norm
    assert isinstance(conv, nn.ConvTranspose2d) == transposed
    assert conv.kernel_size == kernel

    weight = conv.weight.tolist()
    spread = convolve_transposed if transposed else convolve
    images = [spread(image, weight, stride, pad) for image in student.tolist()]
    images = normalise(images, norm.weight.tolist(), norm.bias.tolist(), 1e-5)
    height, width = min(len(images[0][0]), theirs[0]), min(len(images[0][0][0]), theirs[1])
    total, count = 0.0, 0
    for image, hint in zip(images, teacher.tolist(), strict=True):
        for plane, wanted in zip(image, hint, strict=True):
            if activation == "relu":
                plane = [[max(v, 0.0) for v in line] for line in plane]
            for line, goal in zip(pool(plane, height, width), pool(wanted, height, width), strict=True):
                for v, w in zip(line, goal, strict=True):
                    total += (v - w) ** 2
                    count += 1

    value = loss_of(method, student, teacher)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(total / count, rel=1e-10)


@pytest.mark.parametrize("row", ["half", "double", "equal", "somewhat larger", "four times as large"])
def test_regressed_map_has_the_shape_of_the_hint_and_no_loss_if_it_is_the_hint(row: str) -> None:
    ours, theirs, *_ = TABLE[row]
    method = build(ours, theirs, "none")
    student, _ = features(ours, theirs)
    hint = method.regressor(student).detach()
    assert hint.shape == (B, CHANNELS, *theirs)
    assert loss_of(method, student, hint).item() == 0


def test_mean_over_all_elements_by_hand() -> None:
    ones = torch.ones(2, 3, 2, 2)
    assert hint_loss(ones, -ones).item() == 4
    assert hint_loss(ones, torch.ones(2, 3, 4, 4) * 3).item() == 4  # the larger is pooled


def test_bias_of_the_convolution_would_change_nothing() -> None:
    """The papers' convolutions have one; behind them the mean of each channel is subtracted."""
    method = build((3, 4), (3, 4), "relu")
    student, teacher = features((3, 4), (3, 4))
    plain = loss_of(method, student, teacher)
    method.regressor.conv.bias = nn.Parameter(torch.tensor([5.0, -3.0, 0.5], dtype=torch.float64))
    biased = loss_of(method, student, teacher)
    torch.testing.assert_close(biased, plain, rtol=1e-12, atol=0)
    biased.backward()
    assert method.regressor.conv.bias.grad.abs().max() < 1e-12
