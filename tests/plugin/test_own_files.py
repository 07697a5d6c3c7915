"""`file:nets.py:Net` is a model where the command line allows code, and a name that nobody has anywhere else."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

from distillctl import DataError, PluginError
from distillctl.cli import run
from distillctl.models.deploy import check_own_file
from distillctl.plugin.registry import Registry, load, load_options

NETS = """
from torch import nn
with open("ran", "a") as ran:
    ran.write("x")
STAGES = {"stage1": "body", "stage1:pre": "body.1:input"}
CLASSIFIER = "head"
INPUT_SIZE = 8

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))

def net(num_classes):
    return Net(num_classes)

constant = 3
"""
BIRDS = """
from typing import Annotated
import torch
from pydantic import Field
from distillctl import ArrayImages, Options, Splits, View
with open("ran", "a") as ran:
    ran.write("d")
labels = torch.arange(16) % 2

class OPTIONS(Options):
    count: Annotated[int, Field(ge=2)]
    width: int = 8

def Birds(options, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 100, (options.count, options.width, options.width, 3), generator=generator)
    images = ArrayImages((noise + 100 * labels[: options.count, None, None, None]).to(torch.uint8), labels[: options.count])
    return Splits(images, images, images, ("dark", "light"), (0.5,) * 3, (0.2,) * 3, View(options.width))
"""
DATA = """
[dataset]
name = "file:birds.py:Birds"
count = 16
[student]
name = "resnet8"
[train]
epochs = 1
batch_size = 8
"""
PROFILE = """
[dataset]
name = "digits"
limit = 20
[student]
name = "file:nets.py:Net"
[train]
epochs = {}
batch_size = 10
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    Path("birds.py").write_text(BIRDS)
    Path("p.toml").write_text(PROFILE.format(1))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("distillctl_file_"):
            del sys.modules[name]


@pytest.fixture
def allowed():
    registry = Registry()
    registry.allow_code()
    return registry


def test_it_is_nothing_unless_it_is_allowed():
    registry = Registry()
    assert "file:nets.py:Net" not in registry.models
    with pytest.raises(PluginError, match=r"no model is called `file:nets\.py:Net`") as caught:
        registry.models.get("file:nets.py:Net")
    assert "`--allow-code`" in caught.value.problems[0].hint
    registry.allow_code()
    with pytest.raises(PluginError, match="no optimizer is called"):
        registry.optimizers.get("file:nets.py:Net")
    assert not Path("ran").exists()


def test_a_data_set_is_nothing_unless_it_is_allowed():
    registry = Registry()
    with pytest.raises(PluginError, match=r"no data set is called `file:birds\.py:Birds`") as caught:
        registry.datasets.get("file:birds.py:Birds")
    assert "`--allow-code`" in caught.value.problems[0].hint
    assert not Path("ran").exists()


def test_a_data_set_of_a_file_with_options_of_its_own(allowed):
    spec = allowed.datasets.get("file:birds.py:Birds")
    assert spec is allowed.datasets.get(spec.qualified)
    assert (spec.task, spec.summary) == ("classification", "`Birds` of `birds.py`")
    assert set(load_options(spec).model_fields) == {"count", "width"}
    splits = load(spec.implementation, spec.name)(load_options(spec)(count=12), 3)
    assert (len(splits.train), splits.classes) == (12, ("dark", "light"))
    plugin = allowed.datasets.plugin(spec)
    assert (plugin.package, plugin.version) == ("file:birds.py", hashlib.sha256(Path("birds.py").read_bytes()).hexdigest()[:12])
    assert Path("ran").read_text() == "d"
    Path("plain.py").write_text("def plain(options, seed): return None")
    assert not load_options(allowed.datasets.get("file:plain.py:plain")).model_fields


def test_what_is_wrong_with_a_data_set_is_told(allowed):
    for name, message in (
        ("file:birds.py", "`file:birds.py` does not name a data set in a file"),
        ("file:birds.py:Other", "`birds.py` has no class or function `Other`"),
        ("file:birds.py:labels", "`birds.py` has no class or function `labels`"),
    ):
        with pytest.raises(PluginError, match=re.escape(message)):
            allowed.datasets.get(name)


def test_what_a_data_set_gives_is_looked_at(capsys):
    Path("birds.py").write_text("def Birds(options, seed): return [1]")
    Path("d.toml").write_text(DATA.replace("count = 16\n", ""))
    assert run(["train", "d.toml", "--allow-code", "--out", "d"]) != 0
    assert "the builder of the data set `file:birds.py:Birds` returned a list, where `Splits` is expected" in capsys.readouterr().err


def test_another_file_than_that_of_the_data_is_refused(allowed):
    spec = allowed.datasets.get("file:birds.py:Birds")
    check_own_file(allowed, spec, allowed.datasets.plugin(spec).version, "out")
    with pytest.raises(DataError, match=r"`birds\.py` is not the file that `out` was made with"):
        check_own_file(allowed, spec, "0" * 12, "out")


@pytest.mark.slow
def test_a_run_with_a_data_set_of_ones_own(capsys):
    Path("d.toml").write_text(DATA)
    assert run(["check", "d.toml"]) == 2
    assert "no data set is called `file:birds.py:Birds`" in capsys.readouterr().err
    assert run(["train", "d.toml", "--out", "d", "--allow-code"]) == 0
    version = hashlib.sha256(Path("birds.py").read_bytes()).hexdigest()[:12]
    assert json.loads(Path("d/run.json").read_text())["packages"]["file:birds.py"] == version
    assert run(["eval", "d", "--allow-code"]) == 0
    Path("birds.py").write_text(BIRDS + "# changed\n")
    capsys.readouterr()
    assert run(["eval", "d", "--allow-code"]) != 0
    assert "`birds.py` is not the file that `d` was made with" in capsys.readouterr().err
    assert run(["eval", "d", "--allow-code", "--accept-change"]) == 0


def test_a_class_and_a_function_of_a_file_that_runs_once(allowed):
    for name in ("Net", "net"):
        spec = allowed.models.get(f"file:nets.py:{name}")
        assert spec is allowed.models.get(spec.qualified)
        assert spec.stages == {"stage1": "body", "stage1:pre": "body.1:input"}
        assert (spec.classifier, spec.input_size, spec.qualified) == ("head", 8, f"file:nets.py:{name}")
        assert load(spec.implementation, spec.name)(spec.name, 5, None).head.out_features == 5
    plugin = allowed.models.plugin(spec)
    assert (plugin.package, plugin.version) == ("file:nets.py", hashlib.sha256(Path("nets.py").read_bytes()).hexdigest()[:12])
    assert Path("ran").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file:nets.py", "`file:nets.py` does not name a model in a file"),
        ("file:nets.txt:Net", "does not name a model in a file"),
        ("file:nets.py:a b", "does not name a model in a file"),
        ("file:other.py:Net", "`other.py` cannot be read: No such file"),
        ("file:nets.py:Nothing", "`nets.py` has no class or function `Nothing`"),
        ("file:nets.py:constant", "`nets.py` has no class or function `constant`"),
        ("file:broken.py:Net", "`broken.py` cannot be run: ZeroDivisionError"),
        ("file:ends.py:Net", "`ends.py` cannot be run: it ends the program"),
        ("file:wrong.py:Net", "what `wrong.py` states is not right: `stages` of `Net` is not of the type"),
    ],
)
def test_what_is_wrong_is_told(allowed, name, message):
    Path("broken.py").write_text("1 / 0")
    Path("ends.py").write_text("raise SystemExit(3)")
    Path("wrong.py").write_text("STAGES = ['layer1']\nNet = print")
    with pytest.raises(PluginError) as caught:
        allowed.models.get(name)
    assert message in caught.value.problems[0].message
    assert name not in allowed.models


def test_another_file_than_that_of_the_run_is_refused(allowed):
    spec = allowed.models.get("file:nets.py:Net")
    check_own_file(allowed, spec, allowed.models.plugin(spec).version, "out")
    with pytest.raises(DataError, match=r"`nets\.py` is not the file that `out` was made with"):
        check_own_file(allowed, spec, "0" * 12, "out")
    registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
    check_own_file(registry, registry.models.get("resnet18"), "of another version", "out")


def test_the_command_line_allows_it(capsys):
    for command in (["check", "p.toml"], ["train", "p.toml", "--out", "out"], ["bench", "p.toml"], ["train", "p.toml", "--dry-run"]):
        assert run(command) == 2
        assert "no model is called `file:nets.py:Net`" in capsys.readouterr().err
    assert not Path("ran").exists()
    assert run(["check", "p.toml", "--allow-code"]) == 0
    assert Path("ran").exists()


@pytest.mark.slow
def test_a_run_keeps_the_hash_and_its_evaluation_needs_the_word(capsys):
    assert run(["train", "p.toml", "--out", "out", "--allow-code"]) == 0
    version = json.loads(Path("out/model.json").read_text())["version"]
    assert json.loads(Path("out/run.json").read_text())["packages"]["file:nets.py"] == version
    for checkpoint in ("best", "last"):
        assert run(["eval", "out", "--checkpoint", checkpoint, "--allow-code"]) == 0
        capsys.readouterr()
        assert run(["eval", "out", "--checkpoint", checkpoint]) != 0
        assert "`--allow-code`" in capsys.readouterr().err
    Path("teacher.toml").write_text(
        PROFILE.format(1).replace("file:nets.py:Net", "resnet8") + '[teacher]\nrun = "out"\n[method]\nname = "kd"\n'
    )
    assert run(["check", "teacher.toml"]) == 2
    assert run(["check", "teacher.toml", "--allow-code"]) == 0
    Path("nets.py").write_text(NETS + "# changed\n")
    capsys.readouterr()
    for checkpoint in ("best", "last"):
        assert run(["eval", "out", "--checkpoint", checkpoint, "--allow-code"]) != 0
        assert "`nets.py` is not the file that `out` was made with" in capsys.readouterr().err
    Path("out/student.safetensors").unlink()  # so that there is something to be done
    assert run(["train", "p.toml", "--out", "out", "--allow-code"]) != 0
    assert f"the package `file:nets.py`: {version}" in capsys.readouterr().err
