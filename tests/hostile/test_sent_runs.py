"""`eval` of a run that somebody sent: its checkpoint is opened like any other foreign file of weights, with a hash or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.build.models import build_deployed
from distillctl.commands.evaluate import evaluate_run
from distillctl.engine import checkpoint
from distillctl.errors import DataError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.writing import write_toml
from distillctl.rundir.directory import RunDirectory
from distillctl.testing import make_task

PROFILE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[optimizer]
name = "sgd"
lr = 0.1
[train]
epochs = 2
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def run(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run without checkpoints and their hashes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "profile.toml").write_text(PROFILE)
    profile = load("profile.toml", registry=registry)
    return RunDirectory.create(
        tmp_path / "run",
        profile=PROFILE.encode(),
        resolved=write_toml(profile.resolved),
        environment={},
        state={"epoch": 3, "best_epoch": 1},
    )


def student(registry: Registry) -> dict[str, Any]:
    return build_deployed(load("profile.toml", registry=registry), make_task(10), None).state_dict()


def test_the_student_that_was_evaluated_is_read(run: RunDirectory, registry: Registry) -> None:
    weights = student(registry)
    average = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    torch.save({"format": checkpoint.FORMAT, "student": weights, "epoch": 1}, run.best)
    torch.save({"format": checkpoint.FORMAT, "student": weights, "epoch": 2, "ema": {"model": average}}, run.last)
    for phase in ("first", "main", "main"):
        run.append({"phase": phase})
    best, last = (evaluate_run(run.path, registry, checkpoint=which, device="cpu") for which in ("best", "last"))
    assert (best.epoch, last.epoch) == (1, 2)
    assert best.figures != last.figures


FOREIGN = {
    "an opcode without its operand": (b"\x80\x02h\x05.", r"is damaged or not a file of weights \(KeyError\)"),
    "an opcode that is none": (b"\x80\x02\x85.", r"is damaged or not a file of weights \(IndexError\)"),
    "no student": ({"format": checkpoint.FORMAT}, "a mapping with the keys `format`$"),
    "a student that is a number": ({"format": checkpoint.FORMAT, "student": 3}, "a mapping with the keys `format`, `student`$"),
    "another student": ({"format": checkpoint.FORMAT, "student": {"fc": torch.zeros(3)}}, "the weights do not fit the student"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_checkpoint_is_refused_in_words(run: RunDirectory, registry: Registry, content: object, message: str) -> None:
    if isinstance(content, bytes):
        run.best.write_bytes(content)
    else:
        torch.save(content, run.best)
    with pytest.raises(DataError, match=f"(?m){message}"):
        evaluate_run(run.path, registry, device="cpu")
