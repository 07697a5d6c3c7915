"""The two networks of factor transfer: the teacher's paraphraser and the student's translator."""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import LenientBatchNorm2d

_SLOPE = 0.1


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map (B, C, H, W): `encoder` gives the factor (B, K, H, W), `decoder` the map again.

    Three 3×3 convolutions C → C → K → K and three transposed ones K → K → C → C, each followed by LeakyReLU 0.1.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _stack(channels, factors, batch_norm=False)
        self.decoder = nn.Sequential()
        for inner, outer in ((factors, factors), (factors, channels), (channels, channels)):
            self.decoder.append(nn.ConvTranspose2d(inner, outer, 3, padding=1))
            self.decoder.append(nn.LeakyReLU(_SLOPE))

    def forward(self, maps: Tensor) -> Tensor:
        """What is left of a map behind the bottleneck, (B, C, H, W)."""
        rebuilt: Tensor = self.decoder(self.encoder(maps))
        return rebuilt


def translator(channels: int, factors: int, *, batch_norm: bool) -> nn.Sequential:
    """The student's map (B, C, H, W) → its factor (B, K, H, W): 3×3 convolutions C → C → K → K, each with BN and LeakyReLU 0.1."""
    return _stack(channels, factors, batch_norm=batch_norm)


def _stack(channels: int, factors: int, *, batch_norm: bool) -> nn.Sequential:
    layers = nn.Sequential()
    for inner, outer in ((channels, channels), (channels, factors), (factors, factors)):
        layers.append(nn.Conv2d(inner, outer, 3, padding=1, bias=not batch_norm))  # BN would take a bias away again
        if batch_norm:
            layers.append(LenientBatchNorm2d(outer))
        layers.append(nn.LeakyReLU(_SLOPE))
    return layers
