"""Options of `ctkd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillctl import Options, Temperature


class CTKDOptions(Options):
    """Options of `ctkd`."""

    form: Literal["global", "instance"] = "global"
    """One temperature for all samples, or one for each, which a small network predicts from the logits of both sides."""
    t_start: Temperature = 1.0
    """Lower end of the temperature, never reached."""
    t_end: Temperature = 20.0
    """Width of the range: the temperature stays between t_start and t_start + t_end."""
    loops: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    """Epochs over which the reversed gradient grows to its full strength."""
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """Weight decay of the temperature's parameters; the authors' code has 5e-4, which pulls it to the middle of the range."""
    hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the hidden layer of `instance`."""

    @model_validator(mode="after")
    def _hidden_has_an_effect(self) -> CTKDOptions:
        if self.form == "global" and self.hidden != type(self).model_fields["hidden"].default:
            raise ValueError('`hidden` belongs to `form = "instance"`; one temperature for all samples needs no network')
        return self
