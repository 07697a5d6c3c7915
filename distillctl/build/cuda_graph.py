"""Whether the steps of a run are sent to a GPU as one CUDA graph."""

from __future__ import annotations

from typing import Literal

import torch

from distillctl.distributed.process_group import ProcessGroup
from distillctl.errors import ProfileError
from distillctl.profile.schema import Profile


def cuda_graph(
    profile: Profile, device: torch.device, precision: str, processes: ProcessGroup, *, draws: bool = False
) -> Literal["auto", "off", "on"]:
    """`auto` where a step may be captured, `on` where the profile says that it must be, else `off`, which is the default.

    draws: `Task.draws`.

    Raises:
        ProfileError: the profile says `on`, and something in it cannot be captured.
    """
    stated = profile.train.cuda_graph
    if stated in (None, "off"):  # not a default before it has run on a GPU
        return "off"
    reason = _obstacle(profile, device, precision, processes, draws=draws)
    if not reason:
        return "on" if stated == "on" else "auto"
    if stated == "on":
        raise ProfileError(f'`train.cuda_graph = "on"`, but {reason}', hint='use `cuda_graph = "auto"`')
    return "off"


def _obstacle(profile: Profile, device: torch.device, precision: str, processes: ProcessGroup, *, draws: bool) -> str:
    """What keeps a step from being captured, or nothing."""
    unable = [f"`{choice.spec.name}`" for choice in profile.methods if choice.table.weight > 0 and not choice.spec.capturable]
    if device.type != "cuda":
        return f"the run is on {device}"
    if draws:
        return f"the shapes in a step on `{profile.dataset.spec.name}` depend on its images"
    if processes.count > 1:
        return "several processes talk to each other in each step"
    if precision == "fp16":
        return "in fp16 each step decides by its own numbers whether it counts"
    if profile.optimizer.spec.separate_gradients:
        return f"`{profile.optimizer.spec.name}` is not made for it"
    return f"{', '.join(unable)} cannot be captured" if unable else ""


__all__ = ["cuda_graph"]
