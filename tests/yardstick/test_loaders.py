"""The measurement of loaders runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from distillctl.testing.trees import write_tree


def test_every_loader_reads_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, {"cat": 3, "dog": 2})
    script = Path(__file__).with_name("loaders.py")
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path), "--workers", "0", "--rounds", "1", "--size", "12", "--resize", "14"])
    monkeypatch.setenv("DISTILLCTL_CACHE", "")  # put back afterwards
    runpy.run_path(str(script), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith("images/s")]
    assert [name for name, *_ in lines] == ["torchvision", "none", "ram", "disk"]
    assert all(float(rate) > 0 for _, rate, _ in lines)
