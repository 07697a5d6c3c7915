"""What a profile says of the student's layers by their depth: which are frozen, and at which rates the others learn."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from distillctl.errors import ProfileError
from distillctl.models.depth import Depths, levels
from distillctl.profile.schema import Profile


def apply_depth(
    profile: Profile, model: nn.Module, shape: tuple[int, int, int], *, head_replaced: bool = False
) -> tuple[tuple[str, ...], Mapping[str, float]]:
    """Freezes the student's parameters up to `student.freeze`.

    Returns:
        The names of the modules that are frozen, and the factor of the rate for each parameter that is trained; empty for 1 everywhere.

    Raises:
        ProfileError: a factor is stated, and nothing that is trained has it.
    """
    spec, freeze, table = profile.student.spec, profile.student.table.freeze, profile.optimizer.table
    if table.head_lr_scale is not None and head_replaced:
        raise ProfileError(
            "`optimizer.head_lr_scale` has no effect: a method puts a classifier of its own in the place of the student's",
            where="optimizer",
            hint="leave it out",
        )
    if freeze is None and table.head_lr_scale is None and table.layer_decay is None:
        return (), {}
    depths, stages = Depths(model, spec, shape), levels(spec)
    of_parameters = depths.of_parameters
    frozen: tuple[str, ...] = ()
    if freeze is not None:
        last = stages.index(freeze)
        frozen = depths.modules_up_to(last)
        for name, parameter in model.named_parameters():
            if of_parameters[name] <= last:
                parameter.requires_grad_(False)
    below = {name: len(stages) - of_parameters[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    scales = {name: (table.layer_decay or 1.0) ** steps for name, steps in below.items()}
    if table.head_lr_scale is not None:
        scales |= {name: table.head_lr_scale for name in below if name.startswith(f"{spec.classifier}.")}
    if table.layer_decay is not None and not any(below.values()):
        raise ProfileError(
            f'`optimizer.layer_decay` has no effect beside `student.freeze = "{freeze}"`, above which there is no stage',
            where="optimizer",
            hint="leave it out",
        )
    return frozen, {} if table.head_lr_scale is None and table.layer_decay is None else scales
