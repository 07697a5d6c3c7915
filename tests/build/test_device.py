"""What a machine can do for a run, without a GPU to try it on."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillctl.build import device as module
from distillctl.build.device import channels_last, missing_for_compile, pick_device, placed, unused_gpu
from distillctl.errors import MachineError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU, Triton, a compiler and Python's header files."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module.shutil, "which", lambda name: "/bin/clang" if name == "clang" else None)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)


@pytest.mark.parametrize(
    ("device", "precision", "pixels", "expected"),
    [
        (CPU, "fp32", 224, (False, False)),
        (CPU, "bf16", 32, (True, False)),
        (CUDA, "bf16", 32, (True, True)),
        (CUDA, "fp16", 224, (True, True)),
        (CUDA, "fp32", 32, (False, False)),
        (CUDA, "fp32", 224, (True, True)),
    ],
)
@pytest.mark.usefixtures("ampere")
def test_what_has_channels_last(device: torch.device, precision: str, pixels: int, expected: tuple[bool, bool]) -> None:
    assert channels_last(device, precision, pixels) == expected


def test_float32_without_tf32_keeps_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert channels_last(CUDA, "fp32", 224) == (False, False)
    assert channels_last(CUDA, "fp16", 224) == (True, True)


def test_the_memory_format_is_of_all_convolutions() -> None:
    for wanted in (False, True):
        model = placed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2)), CPU, wanted)
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last) is wanted


@pytest.mark.usefixtures("ampere")
def test_nothing_is_missing() -> None:
    assert missing_for_compile(CUDA) == ""


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(
    ("where", "name", "value", "words"),
    [
        (torch.cuda, "get_device_capability", lambda device: (6, 1), "compute capability 6.1, and Triton needs 7.0"),
        (module, "find_spec", lambda name: None, "Triton is not installed"),
        (module.shutil, "which", lambda name: "/bin/cc" if name == "cc" else None, "no C compiler"),
        (module.sysconfig, "get_path", lambda name: "/nowhere", "header files of Python"),
    ],
)
def test_what_is_missing_for_compiling_is_told(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any, words: str) -> None:
    monkeypatch.setattr(where, name, value)
    assert words in missing_for_compile(CUDA)
    assert missing_for_compile(CPU) == ""


@pytest.mark.usefixtures("ampere")
def test_a_stated_compiler_will_do_and_windows_brings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setenv("CC", "icx")
    assert missing_for_compile(CUDA) == ""
    monkeypatch.delenv("CC")
    assert missing_for_compile(CUDA)
    monkeypatch.setattr(sys, "platform", "win32")
    assert missing_for_compile(CUDA) == ""


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Signs of a GPU, and a torch that warns once and cannot use it; the file that is the sign."""
    sign = tmp_path / "version"
    sign.touch()

    def unavailable() -> bool:
        if not said:
            said.append("")
            warnings.warn("CUDA initialization: the driver is too old (Triggered internally at somewhere.cpp:119.)", stacklevel=1)
        return False

    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(module, "_SIGNS_OF_NVIDIA", (tmp_path / "other", sign))
    monkeypatch.setattr(module, "_torch_says", "")
    return sign


def test_a_gpu_that_cannot_be_used_is_told_with_torchs_reason(old_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        device = pick_device("auto")
        assert device == CPU
        assert unused_gpu("auto", device) == (
            "this machine has an NVIDIA GPU that torch cannot use, so that the CPU is used: CUDA initialization: the driver is too old"
        )
    with pytest.raises(MachineError, match="no CUDA device that torch can use: CUDA initialization: the driver is too old"):
        pick_device("cuda")
    assert unused_gpu("cpu", CPU) == ""
    assert unused_gpu("auto", CUDA) == ""
    monkeypatch.setattr(module, "_torch_says", "")
    assert unused_gpu("auto", CPU).endswith("so that the CPU is used")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert unused_gpu("auto", CPU) == ""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    old_driver.unlink()
    assert unused_gpu("auto", CPU) == ""
