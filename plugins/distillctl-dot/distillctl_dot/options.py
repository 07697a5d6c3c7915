"""Options of `dot`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl import Options


class DOTOptions(Options):
    """Options of `dot`."""

    lr: Annotated[float, Field(gt=0, le=1e3)] = 0.05
    """Learning rate before the schedule."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running sums of gradients, before `delta`."""
    delta: Annotated[float, Field(ge=0, lt=1)] = 0.075
    """Taken from the momentum of the label loss and added to that of the methods; 0 gives `sgd`."""
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 5e-4
    """Added to one of the two gradients, that of the label loss where there is one, as weight_decay · θ."""
    decay: Literal["all", "weights"] = "all"
    """What decays: every parameter, or only matrices and kernels (no biases, no norms)."""

    @model_validator(mode="after")
    def _momenta_are_possible(self) -> DOTOptions:
        if self.momentum - self.delta < 0 or self.momentum + self.delta >= 1:
            raise ValueError(
                f"momentum {self.momentum:g} and delta {self.delta:g} do not go together: "
                "momentum − delta must be at least 0, and momentum + delta below 1"
            )
        return self
