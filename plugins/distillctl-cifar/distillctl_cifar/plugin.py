"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, ModelSpec, hookimpl
from distillctl_cifar.zoo import SPECS

DISTILLCTL_API = 1
_PAPER = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"


@hookimpl
def register_model() -> list[ModelSpec]:
    """The CIFAR model zoo."""
    return list(SPECS)


@hookimpl
def register_dataset() -> list[DatasetSpec]:
    """CIFAR-10 and CIFAR-100."""
    return [
        DatasetSpec(
            name=name,
            summary=f"{classes} classes of 32×32 photographs, 50,000 for training and 10,000 for the test",
            paper=_PAPER,
            implementation=f"distillctl_cifar.data.build:build_{name}",
            options=f"distillctl_cifar.options:{name.upper()}Options",
            family=name,
            preview=f"distillctl_cifar.data.places:preview_{name}",
        )
        for name, classes in (("cifar10", 10), ("cifar100", 100))
    ]
