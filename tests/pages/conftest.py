"""Runs as they lie there after a training, made without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distillctl.analysis.differing import Pictures, write_pictures
from distillctl.rundir.answers import Answers, answers_file, write_answers
from distillctl.rundir.directory import RunDirectory

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080000000"
    "03a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""A PNG file of one grey pixel."""


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """`make_run(path, …)` writes a run directory.

    top1: of the result. method: with `values` as keys of its table. epochs: finished ones, of which the last is the best.
    classes: their names. answers: whether what student and teacher answered is kept, and pictures.
    """
    return _made


def _made(
    path: Path,
    *,
    top1: float = 0.75,
    method: str = "kd",
    seed: int = 0,
    epochs: int = 3,
    finished: bool = True,
    classes: tuple[str, ...] = ("cat", "dog", "owl"),
    answers: bool = True,
    terms: tuple[str, ...] = ("task", "kd"),
    **values: Any,
) -> Path:
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    teacher = "" if method == "none" else '[teacher]\nname = "resnet56"\ncheckpoint = "t.pth"\n'
    resolved = (
        f'seed = {seed}\n[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n{teacher}[method]\nname = "{method}"\n{table}'
        f"[train]\nepochs = {epochs}\n"
    )
    state = {"name": "small", "digest": "", "method": method, "epochs": epochs, "epoch": epochs, "best_epoch": epochs, "seconds": 12.5}
    state |= {"student": "resnet8"} if method == "none" else {"student": "resnet8", "teacher": "resnet56"}
    run = RunDirectory.create(path, profile=b"", resolved=resolved, environment={"device": "cpu"}, state=state)
    lines = []
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        line = {
            "phase": "main",
            "epoch": epoch,
            "lr": 0.1 * (1 - share),
            "total": 2 / epoch,
            "terms": {term: 1 / epoch for term in terms},
            "train_top1": top1 * share,
            "val": {"top1": top1 * share, "loss": 1 / epoch},
            "seconds": 2.0,
        }
        lines.append(json.dumps(line | ({} if method == "none" else {"agreement": share})))
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (path / "model.json").write_text(json.dumps({"classes": list(classes)}))
    if finished:
        figures = {"epoch": epochs, "top1": top1, "loss": 0.9, "count": 4}
        result = {"split": "test", "best": figures, "last": figures, "chance": 1 / 3}
        result |= {} if method == "none" else {"teacher": {"top1": 0.9, "loss": 0.4, "count": 4}, "agreement": 0.5}
        costs = {"student": {"parameters": 1000, "macs": 2e6, "ms": 0.5, "device": "cpu", "threads": 1}, "forwards": {"student": 12}}
        run.update(state="finished", result=result, costs=costs)
    if answers and finished:
        label, index = np.array([0, 1, 2, 1]), np.arange(4)
        sure = np.array([[0.9, 0.06, 0.04], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1]], np.float32)
        ranks = {"best": [[0, 1, 2], [0, 1, 2], [2, 1, 0], [1, 0, 2]], "teacher": [[0, 1, 2], [1, 0, 2], [2, 0, 1], [1, 2, 0]]}
        for who, order in ranks.items():
            if who == "best" or method != "none":
                first = np.array(order)
                own = (sure * (first == label[:, None])).sum(1)
                write_answers(answers_file(path, "test", who), Answers(index, label, first, sure, own))
        write_pictures(path, Pictures("test", (1, 2), (PIXEL, PIXEL)))
    return path
