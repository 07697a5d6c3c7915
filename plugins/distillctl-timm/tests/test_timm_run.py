"""A whole run: a student from the weights of the hub's cache, a teacher from a file, maps of both; and what the run keeps."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from distillctl.cli import run

PROFILE = """
[dataset]
name = "digits"
limit = 40
[student]
name = "timm/test_resnet"
weights = "default"
stages = 2
[teacher]
name = "timm/test_vit"
checkpoint = "teacher.pth"
image_size = 32
allow_untrained = true
[method]
name = "at"
[train]
epochs = 1
batch_size = 20
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The profile, the teacher's file, and the student's weights in a cache of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=10, img_size=32).state_dict(), "teacher.pth")
    cached = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    for name in ("refs", "snapshots/abc"):
        (cached / name).mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), cached / "snapshots" / "abc" / "model.safetensors")
    (tmp_path / "p.toml").write_text(PROFILE)
    return tmp_path


@pytest.mark.slow
def test_a_run_keeps_the_licence_and_evaluates(folder, capsys):
    assert run(["train", "p.toml", "--out", "out"]) == 0
    said = capsys.readouterr()
    assert "tensors of the file that the model does not have were left out (first `layer3." in said.out + said.err
    (environment,) = folder.glob("out/**/environment.json")
    kept = json.loads(environment.read_text())
    assert kept["licenses"] == {"student": "apache-2.0"}
    assert kept["packages"]["timm"] == timm.__version__
    described = json.loads((environment.parent / "model.json").read_text())
    assert (described["qualified"], described["options"]) == ("timm/test_resnet", {"stages": 2})
    assert "stage3" not in described["stages"]
    assert run(["eval", str(environment.parent)]) == 0


def test_show_tells_licence_and_normalisation(capsys):
    assert run(["show", "timm/tf_efficientnet_lite2"]) == 0
    shown = capsys.readouterr().out
    assert "apache-2.0" in shown
    assert "[0.5, 0.5, 0.5]" in shown
    assert "0.89 bicubic" in shown
