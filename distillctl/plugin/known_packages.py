"""Names that packages of this project provide, so that an error can say what to install."""

from __future__ import annotations

from collections.abc import Mapping

_RESNETS = frozenset(f"resnet{size}" for size in ("8", "14", "20", "32", "44", "56", "110", "8x4", "32x4"))
_WIDE = frozenset(f"wrn_{depth}_{width}" for depth in (16, 40) for width in (1, 2))
_VGGS = frozenset(f"vgg{depth}" for depth in (8, 11, 13, 16, 19))
_MOBILE = frozenset({"MobileNetV2", "ShuffleV1", "ShuffleV2"})
_LARGE = frozenset(f"ResNet{depth}" for depth in (18, 34, 50, 101, 152))
_CIFAR = _RESNETS | _WIDE | _VGGS | _MOBILE | _LARGE
_TORCHVISION_TOO = _VGGS - {"vgg8"}
"""Their bare names mean torchvision's models where `distillctl-cifar` is missing."""

_METHODS = (
    *("ab", "at", "byot", "cc", "crd", "ctkd", "dist", "dkd", "fitnet", "fsp", "ft", "kdsvd", "lskd", "mgd", "nkd", "nst", "ofa", "ofd"),
    *("pefd", "pkt", "rdrop", "reviewkd", "rkd", "simkd", "sp", "vid"),
)

PACKAGES: Mapping[str, Mapping[str, frozenset[str]]] = {
    "method": {
        **{f"distillctl-{name}": frozenset({name}) for name in _METHODS},
        "distillctl-sdd": frozenset({"sdd", "ssd"}),
        "distillctl-tfkd": frozenset({"tfkd", "tfkd-self"}),
    },
    "optimizer": {"distillctl-dot": frozenset({"dot"})},
    "model": {"distillctl-cifar": (_CIFAR - _TORCHVISION_TOO) | {f"cifar/{name}" for name in _CIFAR}},
    "data set": {
        "distillctl-cifar": frozenset({"cifar10", "cifar100"}),
        "distillctl-cub": frozenset({"cub200"}),
        "distillctl-digits": frozenset({"digits"}),
    },
}
"""kind → package → names."""
