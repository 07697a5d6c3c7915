"""The formula of METHODS as plain loops in float64, with a mask that is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import distillctl_mgd.method
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_mgd.method import MGD
from distillctl_mgd.plugin import register_method


def convolve(x: list, conv: nn.Conv2d) -> list:
    """One image (C, H, W) as nested lists, zero padding, stride 1."""
    weight, bias = conv.weight.tolist(), conv.bias.tolist()
    pad = len(weight[0][0]) // 2
    height, width = len(x[0]), len(x[0][0])
    out = []
    for kernel, offset in zip(weight, bias, strict=True):
        plane = [[offset] * width for _ in range(height)]
        for i in range(height):
            for j in range(width):
                for c, taps in enumerate(kernel):
                    for di, row in enumerate(taps):
                        for dj, tap in enumerate(row):
                            y, z = i + di - pad, j + dj - pad
                            if 0 <= y < height and 0 <= z < width:
                                plane[i][j] += tap * x[c][y][z]
        out.append(plane)
    return out


def loss_by_loops(method: MGD, student: Tensor, teacher: Tensor, keep: Tensor) -> tuple[float, int]:
    """Σ over images, channels and positions, and how many terms there are in it."""
    total, terms = 0.0, 0
    mask = keep.expand(len(teacher), *teacher.shape[1:]).tolist()
    for b, image in enumerate(student.tolist()):
        aligned = convolve(image, method.align) if isinstance(method.align, nn.Conv2d) else image
        masked = [[[v * m for v, m in zip(*r, strict=True)] for r in zip(*p, strict=True)] for p in zip(aligned, mask[b], strict=True)]
        hidden = [[[max(v, 0.0) for v in row] for row in plane] for plane in convolve(masked, method.generator[0])]
        generated = convolve(hidden, method.generator[2])
        for plane, wanted in zip(generated, teacher[b].tolist(), strict=True):
            for row, wanted_row in zip(plane, wanted, strict=True):
                for v, w in zip(row, wanted_row, strict=True):
                    total += (v - w) ** 2
                    terms += 1
    return total, terms


@pytest.mark.parametrize("normalize", ["sum", "mean"])
@pytest.mark.parametrize("mask", ["channel", "spatial"])
@pytest.mark.parametrize("student_channels", [2, 3])
def test_loss_is_the_formula(monkeypatch: pytest.MonkeyPatch, student_channels: int, mask: str, normalize: str) -> None:
    setup = make_setup({"last": (student_channels, 3, 4)}, {"last": (3, 3, 4)})
    torch.manual_seed(0)
    method = MGD(options_of(register_method(), mask=mask, normalize=normalize), setup).double()
    student, teacher = torch.randn(2, student_channels, 3, 4, dtype=torch.float64), torch.randn(2, 3, 3, 4, dtype=torch.float64)
    keep = {
        "channel": torch.tensor([[True, False, True], [False, True, True]]).view(2, 3, 1, 1),
        "spatial": (torch.arange(24) % 3 != 0).view(2, 1, 3, 4),
    }[mask]
    given = {(2, mask, 0.15): keep}
    monkeypatch.setattr(distillctl_mgd.method, "draw_mask", lambda count, maps, kind, ratio: given[count, kind, ratio])

    value = method(make_batch(setup, 2), {"last": student}, {"last": teacher}, make_progress())

    total, terms = loss_by_loops(method, student, teacher, keep)
    expected = total / 2 if normalize == "sum" else total / terms
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_larger_map_is_pooled() -> None:
    setup = make_setup({"last": (3, 4, 4)}, {"last": (3, 2, 2)})
    method = MGD(options_of(register_method(), mask_ratio=0.0), setup)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)
    pooled = student.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    batch, progress = make_batch(setup, 2), make_progress()
    larger, equal = (method(batch, {"last": s}, {"last": teacher}, progress) for s in (student, pooled))
    torch.testing.assert_close(larger, equal)
    enlarged = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)  # pools to what it was
    torch.testing.assert_close(method(batch, {"last": pooled}, {"last": enlarged}, progress), equal)
