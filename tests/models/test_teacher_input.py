"""A teacher sees what it was trained with, whatever the student's data are normalised by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.models.teacher_input import adapt_input

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Keeps(nn.Module):
    """Keeps what it is given."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return images


def data() -> Splits:
    none = ArrayImages(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    return Splits(none, None, None, ("a", "b"), MEAN, STD, View(8), "made up")


def normalised(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """By loops over the channels."""
    return torch.stack([(pixels[:, c] - mean[c]) / std[c] for c in range(3)], 1)


PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.5,) * 3), ((0.1, 0.2, 0.3), None), (None, (1.0, 0.5, 0.25))])
def test_the_view_is_normalised_anew(mean: Any, std: Any) -> None:
    model = Keeps()
    said = adapt_input(model, data(), mean, std, None)
    model.double()(normalised(PIXELS, MEAN, STD))
    torch.testing.assert_close(model.seen, normalised(PIXELS, mean or MEAN, std or STD), rtol=1e-6, atol=1e-6)
    assert said[0].startswith("the teacher sees images normalised by mean [")


def test_the_view_is_resized_after_it() -> None:
    model = Keeps()
    said = adapt_input(model, data(), (0.5,) * 3, (0.5,) * 3, 12)
    model.double()(normalised(PIXELS, MEAN, STD))
    expected = F.interpolate(normalised(PIXELS, (0.5,) * 3, (0.5,) * 3), size=(12, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(model.seen, expected, rtol=1e-5, atol=1e-5)
    assert said == ("the teacher sees images normalised by mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5] and at 12 instead of 8 pixels",)


def test_nothing_is_done_where_nothing_differs() -> None:
    model = Keeps()
    assert adapt_input(model, data(), list(MEAN), STD, 8) == adapt_input(model, data(), None, None, None) == ()
    model(PIXELS)
    assert model.seen is PIXELS
    assert not model._forward_pre_hooks


def test_the_state_of_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    before = set(model.state_dict())
    adapt_input(model, data(), (0.5,) * 3, None, 16)
    assert set(model.state_dict()) == before
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 16, 16)


def test_it_compiles_as_one_graph() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    adapt_input(model, data(), (0.5,) * 3, None, 16)
    images = torch.rand(2, 3, 8, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))
