"""Whether a step is captured: what the profile says, and what keeps it from being done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillctl.build.cuda_graph import cuda_graph
from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile

GPU = torch.device("cuda")
ALONE: Any = SimpleNamespace(count=1)

AUTO = 'cuda_graph = "auto"'
PROFILE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[[method]]
name = "kd"
task_weight = 0.5
[[method]]
name = "dkd"
weight = {weight}
[teacher]
name = "resnet14"
checkpoint = "{folder}/teacher.pt"
[train]
epochs = 1
{line}
"""


def profile(folder: Path, line: str = "", weight: float = 1.0) -> Profile:
    path = folder / "p.toml"
    path.write_text(PROFILE.format(line=line, weight=weight, folder=folder))
    (folder / "teacher.pt").touch()
    return load(path, registry=Registry.load())


def unable(made: Profile) -> Profile:
    """Its last method cannot be captured."""
    first, last = made.methods
    return replace(made, methods=(first, replace(last, spec=replace(last.spec, capturable=False))))


def test_a_step_is_captured_wherever_it_can_be(tmp_path: Path) -> None:
    assert cuda_graph(profile(tmp_path), GPU, "bf16", ALONE) == "off"
    assert cuda_graph(profile(tmp_path, AUTO), GPU, "bf16", ALONE) == "auto"
    assert cuda_graph(profile(tmp_path, 'cuda_graph = "on"'), GPU, "bf16", ALONE) == "on"
    assert cuda_graph(profile(tmp_path, 'cuda_graph = "off"'), GPU, "bf16", ALONE) == "off"


@pytest.mark.parametrize(
    ("device", "precision", "count", "words"),
    [
        (torch.device("cpu"), "bf16", 1, "the run is on cpu"),
        (GPU, "bf16", 2, "several processes talk to each other in each step"),
        (GPU, "fp16", 1, "in fp16 each step decides by its own numbers whether it counts"),
    ],
)
def test_what_keeps_a_step_from_being_captured(tmp_path: Path, device: torch.device, precision: str, count: int, words: str) -> None:
    processes: Any = SimpleNamespace(count=count)
    assert cuda_graph(profile(tmp_path, AUTO), device, precision, processes) == "off"
    with pytest.raises(ProfileError, match=f'`train.cuda_graph = "on"`, but {words}'):
        cuda_graph(profile(tmp_path, 'cuda_graph = "on"'), device, precision, processes)


def test_a_step_of_a_task_that_draws_is_not_captured(tmp_path: Path) -> None:
    assert cuda_graph(profile(tmp_path, AUTO), GPU, "bf16", ALONE, draws=True) == "off"
    with pytest.raises(ProfileError, match=r"the shapes in a step on `.*` depend on its images"):
        cuda_graph(profile(tmp_path, 'cuda_graph = "on"'), GPU, "bf16", ALONE, draws=True)


def test_a_method_that_cannot_be_captured_is_named_unless_it_is_not_evaluated(tmp_path: Path) -> None:
    assert cuda_graph(unable(profile(tmp_path, AUTO)), GPU, "bf16", ALONE) == "off"
    with pytest.raises(ProfileError, match="but `dkd` cannot be captured"):
        cuda_graph(unable(profile(tmp_path, 'cuda_graph = "on"')), GPU, "bf16", ALONE)
    assert cuda_graph(unable(profile(tmp_path, AUTO, weight=0.0)), GPU, "bf16", ALONE) == "auto"


def test_an_optimizer_that_wants_two_gradients_is_not_captured(tmp_path: Path) -> None:
    made = profile(tmp_path, 'cuda_graph = "on"\n[optimizer]\nname = "dot"')
    with pytest.raises(ProfileError, match="but `dot` is not made for it"):
        cuda_graph(made, GPU, "bf16", ALONE)
