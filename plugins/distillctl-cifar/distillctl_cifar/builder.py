"""What distillctl calls to build a model of the zoo."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import end_after
from distillctl_cifar.model_options import CIFARModelOptions
from distillctl_cifar.models import create
from distillctl_cifar.zoo import SPECS

_SPECS = {spec.name: spec for spec in SPECS}


class DropoutLinear(nn.Linear):
    """A Linear layer that drops a share `p` of its inputs in training; its state dict is that of a plain one."""

    p = 0.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the base class
        """(…, in) → (…, out)."""
        return super().forward(F.dropout(input, self.p, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


def build(name: str, num_classes: int, options: CIFARModelOptions | None = None) -> nn.Module:
    """The model of this name with new weights, for RGB images."""
    model = create(name, num_classes)
    spec = _SPECS[name]
    if (count := getattr(options, "stages", None)) is not None:
        end_after(
            model, count, [path for stage, path in spec.stages.items() if stage.startswith("stage") and ":" not in stage], spec.classifier
        )
    if options is not None and options.dropout > 0:
        classifier = model.get_submodule(spec.classifier)
        classifier.__class__ = DropoutLinear
        classifier.p = options.dropout  # type: ignore[assignment]
    return model
