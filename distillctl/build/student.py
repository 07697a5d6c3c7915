"""A deployed student for whoever asks it: the network, its classes, and what an image has to become first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.build.device import pick_device
from distillctl.data.deployed_view import Picture, Preprocessing
from distillctl.errors import DataError
from distillctl.models import deploy
from distillctl.plugin.registry import Registry


@dataclass(frozen=True)
class Student:
    """The student that a run has deployed.

    model: in evaluation mode; (B, C, size, size) float32 → logits (B, classes), or what the network of another task gives.
    transform: an image file, a picture of Pillow or uint8 pixels → float32 (C, size, size), as in evaluations of the run.
    classes: names in the order of the logits; empty where the task has none.
    info: `model.json`.
    path: the run directory.
    """

    model: nn.Module
    transform: Preprocessing
    classes: tuple[str, ...]
    info: Mapping[str, Any]
    path: Path

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        found = next(self.model.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    @torch.inference_mode()
    def logits(self, pictures: Iterable[Picture]) -> Tensor:
        """Answers to pictures, all of which are computed at once: float32, (N, classes), on the CPU.

        Raises:
            DataError: a file is missing or cannot be decoded, or the network gives no logits.
        """
        pixels = torch.stack([self.transform.pixels(picture) for picture in pictures])
        answers = self.model(self.transform.normalise(pixels).to(self.device))
        if not isinstance(answers, Tensor):
            raise DataError(f"the student in `{self.path}` gives no logits", hint="`distillctl.predict(student, paths)` gives its answers")
        return answers.float().cpu()


def load_student(run: str | Path, *, device: str = "cpu", allow_code: bool = False, registry: Registry | None = None) -> Student:
    """The student of a finished run, ready to answer.

        student = load_student("runs/birds")
        logits = student.model(student.transform("wren.jpg")[None])

    Args:
        run: the run directory, or any folder with `student.safetensors` and `model.json`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        allow_code: run the file of a model of one's own (`file:nets.py:Net`), which is refused otherwise.
        registry: the installed plugins, where they were loaded already.

    Raises:
        DataError: a file is missing or damaged.
        PluginError: the model's package is not installed.
        MachineError: there is no such device.
    """
    if registry is None:
        registry = Registry.load()
    if allow_code:
        registry.allow_code()
    chosen = pick_device(device)
    model, info = deploy.read_student(run, registry)
    return Student(model.to(chosen), Preprocessing(info["input"]), tuple(info["classes"]), info, Path(run))
