"""What student and teacher of a finished run cost, for the last screen and `run.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from distillctl.build.device import channels_last, placed
from distillctl.engine.experiment import Experiment
from distillctl.models.cost import forward_latency, images_of, macs, parameters
from distillctl.models.fake_quantise import restore

_SECONDS, _MOST = 0.4, 20
"""For timing one side, and the forwards that are enough for it."""


def run_costs(experiment: Experiment, sides: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """For each side `parameters`, `macs` of an image of the run, `ms` of a forward of one image in float32, and on what that was timed.

    Nothing of a model changes but its place in memory, and that a student of 8 bits computes in floating point from now on. What a model
    cannot compute of one image alone is left out.
    """
    device, data = experiment.device, experiment.task.data
    shape = (data.channels, *data.view.shape)
    last, _ = channels_last(device, experiment.settings.precision, data.view.size)
    found: dict[str, dict[str, Any]] = {}
    restore(sides["student"])  # rounding to 8 bits is simulated in training, and costs nothing in what is deployed
    for name, model in sides.items():
        found[name] = {"parameters": parameters(model)}
        try:
            found[name]["macs"] = macs(placed(model, device, last), shape)
            time = forward_latency(model, images_of(shape, 1, device, last), seconds=_SECONDS, fewest=1, most=_MOST)
        except Exception:  # noqa: BLE001 - the training is done: whatever a model raises of one image must not lose it
            continue
        found[name] |= {"ms": time.median * 1000, "device": str(device), "threads": torch.get_num_threads()}
    return found
