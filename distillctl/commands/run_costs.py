"""What the networks and methods of a run cost, for the last screen, a dry run and `run.json`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.build.device import channels_last, placed
from distillctl.engine.experiment import Experiment
from distillctl.engine.step import Step
from distillctl.models.cost import forward_latency, images_of, macs, macs_of, parameters
from distillctl.models.fake_quantise import restore
from distillctl.models.features import evaluating

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


def method_costs(step: Step, batch: Batch | None) -> dict[str, int]:
    """Of all methods of the main part together `parameters`, beside the student's own, and `macs`: multiply-accumulates of their losses for
    an image, forward, beside those of the networks.

    What it computes changes statistics and buffers: a run is over, or is a trial.

    batch: one that the step was trained on; without it, or where methods cannot be computed once more, `macs` is left out.
    """
    experiment, objective = step.experiment, step.learner.objective
    student = {id(p) for p in experiment.model.parameters()}
    found = {"parameters": sum(p.numel() for p in objective.methods.parameters() if id(p) not in student)}
    if batch is None:
        return found
    piece = step.first_piece(batch)
    try:
        # Alone: the other processes do not come along.
        with evaluating(objective) if experiment.processes.count > 1 else nullcontext():
            with torch.no_grad():
                looks = step.look(piece)
                learnt = objective.relabelled(piece, looks, step.progress)
                outputs = objective.observe(learnt)
            counted = macs_of(lambda: objective.losses(piece, outputs, looks, step.progress, learnt), objective.parameters())
    except Exception:  # noqa: BLE001 - as above
        return found
    return {**found, "macs": counted // piece.count}
