"""Weights are found on this machine alone, in our folder and in the hub's cache, and read by timm."""

from __future__ import annotations

import socket

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from distillctl import DataError
from distillctl_timm import pretrained
from distillctl_timm.builder import build
from distillctl_timm.options import FixedSizeOptions

NAME = "test_efficientnet"
TAG = "r160_in1k"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty folders for all that is looked at, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))

    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    return tmp_path


@pytest.fixture
def state():
    torch.manual_seed(0)
    return timm.create_model(NAME).state_dict()


def in_hub(places, name, file):
    """Where the hub's cache keeps a file of the first revision."""
    folder = places / "hub" / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    return folder / "snapshots" / "abc" / file


def test_from_the_cache_of_the_hub(places, state):
    safetensors.torch.save_file(state, in_hub(places, f"{NAME}.{TAG}", "model.safetensors"))
    for weights in ("default", TAG):
        found = pretrained.load_weights(NAME, weights)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_position_embeddings_are_resampled_for_another_size(places):
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    safetensors.torch.save_file(state, in_hub(places, "test_vit.r160_in1k", "model.safetensors"))
    found = pretrained.load_weights("test_vit", "default", FixedSizeOptions(image_size=64))
    assert found["pos_embed"].shape == build("test_vit", 3, FixedSizeOptions(image_size=64)).pos_embed.shape
    assert found["pos_embed"].shape != state["pos_embed"].shape
    assert torch.equal(found["patch_embed.proj.weight"], state["patch_embed.proj.weight"])
    assert torch.equal(pretrained.load_weights("test_vit", "default", FixedSizeOptions())["pos_embed"], state["pos_embed"])


def test_an_older_file_of_the_hub(places, state):
    torch.save(state, in_hub(places, f"{NAME}.{TAG}", "pytorch_model.bin"))
    assert torch.equal(pretrained.load_weights(NAME, TAG)["conv_stem.weight"], state["conv_stem.weight"])


def test_our_own_folder_goes_first(places, state):
    safetensors.torch.save_file(state, in_hub(places, f"{NAME}.{TAG}", "model.safetensors"))
    other = {key: value + 1 for key, value in state.items()}
    (places / "ours" / "timm").mkdir(parents=True)
    safetensors.torch.save_file(other, places / "ours" / "timm" / f"{NAME}.{TAG}.safetensors")
    assert torch.equal(pretrained.load_weights(NAME, TAG)["conv_stem.weight"], state["conv_stem.weight"] + 1)


def test_what_is_published_elsewhere_is_looked_for_in_the_cache_of_torch(places):
    with pytest.raises(DataError, match="`in1k` of `gcvit_xxtiny` are not on this machine") as caught:
        pretrained.file_of("gcvit_xxtiny", "in1k")
    assert "it is published at https://" in caught.value.problems[0].hint
    file = places / "torch" / "checkpoints" / "gcvit_xxtiny_224_nvidia-d1d86009.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert pretrained.file_of("gcvit_xxtiny", "in1k") == file


def test_a_file_that_is_not_there_is_named(places):
    with pytest.raises(DataError) as caught:
        pretrained.load_weights(NAME, "default")
    problem = caught.value.problems[0]
    assert problem.message == f"the weights `{TAG}` of `{NAME}` are not on this machine, and nothing is downloaded"
    assert f"`hf download timm/{NAME}.{TAG} model.safetensors`" in problem.hint
    assert problem.hint.endswith(f"put its file at {places}/ours/timm/{NAME}.{TAG}.safetensors")


def test_a_damaged_file_and_an_unknown_tag(places):
    file = in_hub(places, f"{NAME}.{TAG}", "model.safetensors")
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"the weights `{TAG}` of `{NAME}` cannot be read") as caught:
        pretrained.load_weights(NAME, TAG)
    assert caught.value.problems[0].where == str(file)
    with pytest.raises(DataError, match="has no weights called `in22k`") as caught:
        pretrained.load_weights(NAME, "in22k")
    assert TAG in caught.value.problems[0].hint
