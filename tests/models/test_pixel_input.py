import torch
from torch import nn

from distillctl.data.pixels import Normalise
from distillctl.models.pixel_input import PixelInput


def test_the_same_bits_as_loaders_give():
    mean, std = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1, 1)
    wanted = Normalise(mean, std, torch.device("cpu"))(pixels)
    assert torch.equal(PixelInput(nn.Identity(), mean, std)(pixels), wanted)
    assert torch.equal(PixelInput(nn.Identity(), mean, std)(pixels.float()), wanted)


def test_it_is_in_the_mode_of_its_network():
    assert not PixelInput(nn.Identity().eval(), (0.5,), (0.5,)).training
