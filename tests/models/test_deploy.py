"""The deployed student loads with the model's package alone, and with ours; what is damaged is told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from torch import nn

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.builtin import torchvision as declared
from distillctl.errors import DataError, MachineError, PluginError
from distillctl.models import deploy
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry, load
from distillctl.testing.tiny_models import TINY_CNN, TINY_VIT, TinyCNN, TinyOptions

CLASSES = ("red", "grün", 'blue "deep"')
PREPROCESSING = {"channels": 3, "size": 32, "resize": 36, "mean": (0.5, 0.4, 0.3), "std": [0.2, 0.2, 0.2]}
SPECS = {spec.name: spec for spec in declared.register_model()}


@pytest.fixture(scope="module")
def registry():
    registry = Registry()
    for spec in (TINY_CNN, TINY_VIT, *SPECS.values()):
        registry.models.add(spec, Plugin("test", "distillctl-test", "1.2"))
    return registry


def write(folder, model, spec=TINY_CNN, **changes):
    keywords = {
        "spec": spec,
        "shown_name": spec.name,
        "options": {},
        "outputs": 3,
        "classes": CLASSES,
        "preprocessing": PREPROCESSING,
        "package": "distillctl-test",
        "version": "1.2",
        "extra": {},
    }
    deploy.write_student(folder, model, **{**keywords, **changes})


def unchecked(folder):
    """Without their hashes, a folder's files are taken as they are, like those of older versions."""
    for path in folder.glob("*.sha256"):
        path.unlink()


def built(name, **options):
    spec = SPECS[name]
    torch.manual_seed(0)
    model = load(spec.implementation, name)(name, 3, load(spec.options, name)(**options))
    for module in model.modules():  # statistics that a fresh model would not have
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    return model.eval()


class Named(nn.Module):
    """A model whose own names begin like those of `DataParallel`."""

    def __init__(self):
        super().__init__()
        self.module = TinyCNN(3, 4)


def test_description(tmp_path):
    write(tmp_path, TinyCNN(3, 4), options={"width": 4}, extra={"epoch": 7})
    info = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert info == {
        "format": 1,
        "model": "tiny_cnn",
        "qualified": "tiny_cnn",
        "package": "distillctl-test",
        "version": "1.2",
        "implementation": "distillctl.testing.tiny_models:build_tiny",
        "options": {"width": 4},
        "num_classes": 3,
        "classes": ["red", "grün", 'blue "deep"'],
        "input": {"channels": 3, "size": 32, "resize": 36, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
        "stages": dict(TINY_CNN.stages),
        "classifier": "fc",
        "epoch": 7,
    }
    assert deploy.read_model_json(tmp_path) == info
    with safetensors.safe_open(tmp_path / "student.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.json",
        "model.json.sha256",
        "student.safetensors",
        "student.safetensors.sha256",
    ]


def test_round_trip_with_options(tmp_path, registry):
    model = TinyCNN(3, 6).train()
    model(torch.randn(4, 3, 8, 8))
    write(tmp_path, model.to(memory_format=torch.channels_last), options=TinyOptions(width=6).model_dump(mode="json"))
    loaded, info = deploy.read_student(tmp_path, registry)
    assert not loaded.training
    assert info["classes"] == list(CLASSES)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded(images), model.eval()(images))
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.slow
def test_torchvision_loads_it_without_us(tmp_path):
    model = built("mobilenet_v2")
    write(tmp_path, model, SPECS["mobilenet_v2"])
    images = torch.randn(2, 3, 32, 32)
    safetensors.torch.save_file({"images": images, "logits": model(images)}, tmp_path / "expected")
    code = """
import sys, torch, torchvision, safetensors.torch
model = torchvision.models.mobilenet_v2(num_classes=3)
print(model.load_state_dict(safetensors.torch.load_file("student.safetensors")))
expected = safetensors.torch.load_file("expected")
assert torch.allclose(model.eval()(expected["images"]), expected["logits"], atol=1e-6)
assert not any(name.startswith("distillctl") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "All keys matched" in done.stdout


def test_torchvision_loads_googlenet_with_what_the_description_says(tmp_path):
    model = built("googlenet", transform_input=False)
    write(tmp_path, model, SPECS["googlenet"], options={"transform_input": False})
    info = deploy.read_model_json(tmp_path)
    other = torchvision.models.googlenet(
        num_classes=3, aux_logits=False, init_weights=False, transform_input=info["options"]["transform_input"]
    )
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "student.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(other.eval()(images), model(images))


@pytest.mark.parametrize("name", ["mnasnet0_5", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_students_come_back(name, tmp_path, registry):
    # MNASNet refuses a state dict without the version of its layout, which the file cannot hold.
    spec = SPECS[name]
    torch.manual_seed(0)
    options = load(spec.options, name)() if spec.options else Options()
    model = load(spec.implementation, name)(name, 3, options).eval()
    write(tmp_path, model, spec)
    loaded, info = deploy.read_student(tmp_path, registry)
    assert info["qualified"] == f"torchvision/{name}"
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(images), model(images))


def test_tied_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.register_buffer("part", self.a.weight.detach()[1:])

    model = Tied()
    write(tmp_path, model)
    weights = safetensors.torch.load_file(tmp_path / "student.safetensors")
    assert set(weights) == {"a.weight", "a.bias", "b.weight", "b.bias", "part"}
    assert torch.equal(weights["a.weight"], weights["b.weight"])
    Tied().load_state_dict(weights)


def test_overwrites_and_leaves_nothing_behind(tmp_path, registry):
    write(tmp_path, TinyCNN(3, 8))
    model = TinyCNN(3, 8)
    write(tmp_path, model)
    assert len(list(tmp_path.iterdir())) == 4
    assert torch.equal(deploy.read_student(tmp_path, registry)[0].fc.weight, model.fc.weight)


def test_others_may_read_it(tmp_path):
    write(tmp_path, TinyCNN(3, 8))
    mask = os.umask(0o022)
    os.umask(mask)
    for name in ("student.safetensors", "model.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written"):
        write(tmp_path / "file", TinyCNN(3, 8))
    with pytest.raises(MachineError, match="cannot be written"):
        write(tmp_path / "nowhere", TinyCNN(3, 8))


def test_extra_may_not_hide_what_is_always_there(tmp_path):
    with pytest.raises(ValueError, match="options"):
        write(tmp_path, TinyCNN(3, 8), extra={"options": {}})
    assert list(tmp_path.iterdir()) == []


def test_state_that_is_no_tensor(tmp_path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"words": 3}

    with pytest.raises(PluginError, match="`_extra_state`"):
        write(tmp_path, Odd(2, 2))


def changed(folder, **changes):
    unchecked(folder)
    path = folder / "model.json"
    info = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in info.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "newer version"),
        ({"format": None}, "does not describe"),
        ({"classes": None}, "has no `classes`"),
        ({"num_classes": "3"}, "`num_classes` in"),
        ({"num_classes": 4}, "names 3 classes but says that there are 4"),
        ({"options": {"widht": 8}}, "the options of `tiny_cnn`"),
        ({"options": {"width": 12}}, "do not fit student `tiny_cnn`"),
    ],
)
def test_wrong_descriptions(changes, words, tmp_path, registry):
    write(tmp_path, TinyCNN(3, 8))
    changed(tmp_path, **changes)
    with pytest.raises(DataError, match=words):
        deploy.read_student(tmp_path, registry)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b"[" * 100_000])
def test_damaged_description(content, tmp_path):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.json"):
        deploy.read_model_json(tmp_path)


def test_missing_files(tmp_path, registry):
    with pytest.raises(DataError, match="holds no deployed student") as caught:
        deploy.read_model_json(tmp_path)
    assert "when it is finished" in caught.value.problems[0].hint
    with pytest.raises(DataError, match="holds no deployed student"):
        deploy.read_model_json(tmp_path / "nowhere")
    write(tmp_path, TinyCNN(3, 8))
    (tmp_path / "student.safetensors").unlink()
    with pytest.raises(DataError, match=r"student\.safetensors` is gone"):
        deploy.read_student(tmp_path, registry)
    unchecked(tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        deploy.read_student(tmp_path, registry)


@pytest.mark.parametrize("name", ["student.safetensors", "model.json"])
def test_damage_that_only_the_hash_sees(name, tmp_path, registry):
    write(tmp_path, TinyCNN(3, 8))
    data = bytearray((tmp_path / name).read_bytes())
    data[-20] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}` is not the file that this run wrote"):
        deploy.read_student(tmp_path, registry)


def test_damaged_weights(tmp_path, registry):
    write(tmp_path, TinyCNN(3, 8))
    unchecked(tmp_path)
    path = tmp_path / "student.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        deploy.read_student(tmp_path, registry)


def test_package_that_is_not_installed(tmp_path):
    write(tmp_path, TinyCNN(3, 8))
    with pytest.raises(PluginError, match="no model is called `tiny_cnn`") as caught:
        deploy.read_student(tmp_path, Registry())
    assert caught.value.problems[0].hint == "it was made with `distillctl-test` 1.2: pip install distillctl-test"


def test_builder_that_builds_no_module(tmp_path):
    registry = Registry()
    spec = ModelSpec(name="odd", summary="x", implementation="builtins:print")
    registry.models.add(spec, Plugin("test", "distillctl-test", "1.2"))
    write(tmp_path, TinyCNN(3, 8), spec)
    with pytest.raises(PluginError, match="returned NoneType, not a module"):
        deploy.read_student(tmp_path, registry)


def test_names_that_look_like_wrappers_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("distillctl.testing.tiny_models.build_named", lambda *_: Named(), raising=False)
    spec = ModelSpec(name="named", summary="x", implementation="distillctl.testing.tiny_models:build_named")
    registry = Registry()
    registry.models.add(spec, Plugin("test", "distillctl-test", "1.2"))
    model = Named()
    write(tmp_path, model, spec)
    loaded, _ = deploy.read_student(tmp_path, registry)
    assert torch.equal(loaded.module.fc.weight, model.module.fc.weight)
