from __future__ import annotations

import os

import pytest
import torch

from distillctl.data import workers
from distillctl.data.workers import available_cores, worker_count

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_cores_of_the_process_and_not_of_the_machine():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("rubbish", None)]
)
def test_quota_of_a_container(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert workers._quota(tmp_path / "cpu.max") == cores


def test_no_quota_file(tmp_path):
    assert workers._quota(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("asked", "cores", "steps", "device", "count"),
    [
        ("auto", 8, 100, CUDA, 8),
        ("auto", 8, 100, CPU, 4),
        ("auto", 1, 100, CPU, 1),
        ("auto", 200, 100, CUDA, 16),
        ("auto", 8, 3, CUDA, 3),
        (0, 8, 100, CUDA, 0),
        (12, 8, 100, CPU, 12),
        (12, 8, 5, CPU, 5),
    ],
)
def test_workers_to_start(monkeypatch, asked, cores, steps, device, count):
    monkeypatch.setattr(workers, "available_cores", lambda: cores)
    assert worker_count(asked, steps, device) == count
