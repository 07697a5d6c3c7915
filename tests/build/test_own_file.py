"""A model that is made of a file of its own: it teaches and is evaluated, and is never a student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillctl import ModelSpec, Options, WeightsInput, hookimpl
from distillctl.builtin.classification_task import Classification
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate_model import evaluate_model
from distillctl.errors import ProfileError
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load


class Brightness(nn.Module):
    """Logits by the mean of an image in [0, 1], in two halves; without a parameter."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3)) > self.bound
        return torch.stack([~bright, bright], 1).float()


def build(_name: str, _num_classes: int, _options: Options, file: Path) -> nn.Module:
    return Brightness(json.loads(file.read_text(encoding="utf-8")))


DATA = '[dataset]\nname = "npz"\nroot = "images.npz"\n'
RUN = f"""{DATA}[student]
name = "cifar/resnet8"
[teacher]
name = "brightness"
checkpoint = "bound.json"
[method]
name = "kd"
[train]
epochs = 1
batch_size = 4
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("made_of_files")
    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_of_files", module)
    spec = ModelSpec(
        name="brightness",
        summary="for tests",
        implementation="made_of_files:build",
        own_file=True,
        weights_input={"": WeightsInput(mean=(0.0,) * 3, std=(1.0,) * 3)},
    )
    found = Registry.load()
    found.add(Plugin("own", "own", "0"), lambda: SimpleNamespace(register_model=hookimpl(lambda: spec), __name__="own"))
    arrays: dict[str, Any] = {"classes": np.array(["dark", "light"])}
    for split, count in (("train", 8), ("val", 6)):
        labels = np.arange(count) % 2
        arrays[f"{split}_labels"] = labels
        arrays[f"{split}_images"] = np.broadcast_to((100 + 60 * labels)[:, None, None, None], (count, 16, 16, 3)).astype(np.uint8)
    np.savez("images.npz", **arrays)
    Path("data.toml").write_text(DATA)
    Path("run.toml").write_text(RUN)
    Path("bound.json").write_text("0.5")
    Path("low.json").write_text("0.1")
    return found


def test_it_is_built_from_its_file_and_sees_what_it_was_made_to_see(registry: Registry) -> None:
    report = evaluate_model("brightness", Path("data.toml"), registry, checkpoint=Path("bound.json"), device="cpu")
    assert report.figures["top1"] == 1.0
    assert report.notes == ("the model sees images normalised by mean [0, 0, 0] and std [1, 1, 1]",)
    low = evaluate_model("brightness", Path("data.toml"), registry, checkpoint=Path("low.json"), device="cpu")
    assert low.figures["top1"] == 0.5


def test_it_teaches_and_the_task_is_shown_it_first(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[nn.Module] = []
    monkeypatch.setattr(Classification, "adopt", lambda _task, model: shown.append(model) or ("adopted",))
    parts = dry_run(load("run.toml", registry=registry), registry, device="cpu").parts
    assert set(parts[-1].reading.terms) == {"task", "kd"}
    assert {type(model) for model in shown} == {Brightness}
    report = evaluate_model("brightness", Path("data.toml"), registry, checkpoint=Path("bound.json"), device="cpu")
    assert report.notes[0] == "adopted"


def test_it_is_never_a_student(registry: Registry) -> None:
    Path("run.toml").write_text(RUN.replace('"cifar/resnet8"', '"brightness"'))
    with pytest.raises(ProfileError, match="`brightness` runs a file of its own and cannot be trained"):
        load("run.toml", registry=registry)
