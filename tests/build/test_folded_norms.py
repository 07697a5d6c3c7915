"""Weights with folded batch normalisation compute what they did, and can be trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from distillctl import ArrayImages, Splits, View
from distillctl.build.folded_norms import folded, unfold
from distillctl.testing import make_task

CPU = torch.device("cpu")


def splits() -> Splits:
    draw = torch.Generator().manual_seed(0)
    images = ArrayImages(torch.randint(0, 256, (80, 8, 8, 3), generator=draw, dtype=torch.uint8), torch.arange(80) % 4)
    return Splits(images, None, images, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, View(8, "none"), "noise")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 5, 3, bias=False),
            nn.BatchNorm2d(5),
            nn.ReLU(),
        )
        self.fc = nn.Linear(5, 4)
        self.unused = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.fc(self.body(images).mean((2, 3)))
        return out


def trained() -> Net:
    """With norms that do something."""
    torch.manual_seed(0)
    net = Net()
    for norm in (net.body[1], net.body[4]):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 4.0)
    return net.eval()


def fold(net: Net, var: float) -> Net:
    """Scales go into the convolutions, and what is left is a shift."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for conv, norm in ((net.body[0], net.body[1]), (net.body[3], net.body[4])):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            conv.weight.mul_(scale[:, None, None, None])
            norm.bias.sub_(norm.running_mean * scale)
            norm.weight.fill_(1)
            norm.running_mean.zero_()
            norm.running_var.fill_(var)
        net.unused.bias.fill_(0.0)
    return net


def gap(net: Net, images: Tensor) -> float:
    """How far what it computes in training, where each batch is normalised by itself, is from what it computes in evaluation."""
    training = copy.deepcopy(net).train()(images)
    return float((training - net(images)).detach().abs().mean())


@pytest.mark.parametrize("var", [1.0, 1.0 - 1e-5])
def test_the_network_computes_the_same_and_training_mode_knows_what_it_knew(var: float) -> None:
    net = trained()
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    small = fold(net, var)
    task = make_task(splits())
    before = small(images)
    torch.testing.assert_close(before, net(images), rtol=1e-3, atol=1e-4)
    views = (task.data.train.images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25  # type: ignore[union-attr]
    lost = gap(small, views)
    notes = unfold(small, task, CPU, 0)
    assert len(notes) == 1
    assert "folded" in notes[0]
    torch.testing.assert_close(small(images), before, rtol=1e-4, atol=1e-5)
    assert all(norm.running_mean.any() for norm in (small.body[1], small.body[4]))
    assert gap(small, views) < lost / 4


def test_nothing_else_is_touched() -> None:
    task = make_task(splits())
    partly = fold(trained(), 1.0)
    partly.body[4].running_mean[0] = 0.5
    scaled = fold(trained(), 1.0)
    with torch.no_grad():
        scaled.body[1].weight[0] = 1.5
    for net in (trained(), Net().eval(), partly, scaled, nn.Sequential(nn.Flatten(), nn.Linear(192, 4))):
        state = copy.deepcopy(net.state_dict())
        assert folded(net) == []
        assert unfold(net, task, CPU, 0) == []
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
