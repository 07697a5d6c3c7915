"""What the table says is what the installed timm says; and nobody waits for timm where the table knows."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from distillctl import PluginError
from distillctl.errors import ProfileError
from distillctl.models.features import Tapped
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_timm import table

LISTED = (
    "import sys\nfrom distillctl.cli import run\ncode = run(['list-models', 'timm/*vit*'])\n"
    "print(len(set(sys.modules) & {'torch', 'timm', 'huggingface_hub'}), file=sys.stderr)\nsys.exit(code)"
)


@pytest.fixture
def without(monkeypatch):
    """`without(name)`: the table does not know this network."""

    def forget(name):
        data = table._table()
        models = {key: row for key, row in data["models"].items() if key != name}
        monkeypatch.setattr(table, "_table", lambda: {**data, "models": models})

    return forget


def test_listing_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.split()[-1]) == (0, "0"), done.stderr
    assert "timm/vit_tiny_patch16_224" in done.stdout
    assert "ghostnet" not in done.stdout


def test_a_declaration_from_the_table():
    spec = Registry.load().models.get("timm/tf_efficientnet_lite2")
    assert spec.stages == {
        "stem": "blocks.0", "stage1": "blocks.1", "stage2": "blocks.2", "stage3": "blocks.4", "stage4": "blocks.6", "final": "bn2",
    }  # fmt: skip
    assert (spec.classifier, spec.input_size, spec.weights) == ("classifier", 260, ("default", "in1k"))
    seen = spec.weights_input["default"]
    assert (seen.mean, seen.std, seen.size, seen.crop) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 260, 0.89)
    assert (seen.interpolation, seen.license) == ("bicubic", "apache-2.0")
    assert spec.summary == "6.1 M parameters, 260 px; weights in1k"
    assert spec.options.endswith(":TimmOptions")
    assert table.find("vit_tiny_patch16_224").options.endswith(":FixedSizeOptions")


def test_default_is_the_first_tag_and_licences_differ():
    spec = table.find("convnextv2_atto")
    assert spec.weights[:2] == ("default", "fcmae_ft_in1k")
    assert spec.weights_input["default"] == spec.weights_input["fcmae_ft_in1k"]
    assert spec.weights_input["default"].license == "cc-by-nc-4.0"


def test_what_the_table_lacks_is_asked_of_timm(without):
    """And gives the same, which compares the table with timm in passing."""
    known = table.find("test_vit")
    without("test_vit")
    assert "test_vit" not in table.names()
    assert table.find("test_vit") == known


def test_the_script_writes_what_is_read(monkeypatch):
    script = runpy.run_path(str(Path(__file__).with_name("make_table.py")))
    names = ["test_resnet", "test_vit", "deepseek_vit_412m_enc"]
    data = json.loads(script["text"](script["table"](names)))
    known = {name: table.find(name) for name in names[:2]}
    assert list(data["models"]) == names[:2], "what is not a classifier is left out"
    monkeypatch.setattr(table, "_table", lambda: data)
    assert {name: table.find(name) for name in data["models"]} == known


PROFILE = """
[dataset]
name = "digits"
[student]
name = "timm/ghostnet_100"
[teacher]
name = "timm/{}"
weights = "default"
[method]
name = "kd"
[train]
epochs = 1
"""


@pytest.mark.parametrize(
    ("teacher", "mean", "size"),
    [
        ("tf_efficientnet_lite2", [0.5, 0.5, 0.5], None),
        ("vit_tiny_patch16_384", [0.5, 0.5, 0.5], 384),
        ("resnet18", [0.485, 0.456, 0.406], None),
    ],
)
def test_a_teacher_sees_what_its_weights_were_made_to_see(tmp_path, teacher, mean, size):
    """Its mean always, and its size where it works at no other."""
    path = tmp_path / "p.toml"
    path.write_text(PROFILE.format(teacher))
    found = load(path, registry=Registry.load()).teacher
    assert (found.table.mean, found.table.image_size) == (mean, size)
    assert getattr(found.options, "image_size", None) == size
    path.write_text(PROFILE.format(teacher).replace("default", "in99k"))
    with pytest.raises(ProfileError, match="knows no weights called `in99k`"):
        load(path, registry=Registry.load())


def test_a_name_that_nobody_has_is_refused_without_timm():
    code = "import sys; from distillctl_timm.table import find; print(find('ghostnet_10'), find('a(b'), 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.split() == [
        "None",
        "None",
        "False",
    ]
    with pytest.raises(PluginError, match="no model is called `timm/ghostnet_10`") as caught:
        Registry.load().models.get("timm/ghostnet_10")
    assert "did you mean `timm/ghostnet_1" in caught.value.problems[0].hint


def test_what_is_not_a_classifier_is_refused():
    with pytest.raises(PluginError, match="`deepseek_vit_412m_enc` is not a classifier"):
        table.find("deepseek_vit_412m_enc")


def test_feature_methods_are_refused_where_there_are_no_stages():
    """The logits are there all the same."""
    import timm
    import torch

    spec = table.find("crossvit_tiny_240")
    assert (dict(spec.stages), spec.classifier) == ({}, "")
    with torch.device("meta"):
        model = timm.create_model("crossvit_tiny_240", num_classes=3)
        assert Tapped(model, spec, ["logits"])(torch.empty(2, 3, 240, 240))["logits"].shape == (2, 3)
    for name, lacks in (("last", "stages"), ("pooled", "classifier")):
        with pytest.raises(ProfileError, match=f"`crossvit_tiny_240` declares no {lacks}, so `{name}` means nothing"):
            Tapped(model, spec, [name])


@pytest.mark.slow
def test_samples_of_the_table_are_what_timm_has(without):
    import timm

    names = list(table.names())
    for name in names[::200]:
        known = table.find(name)
        without(name)
        assert table.find(name) == known
    if table._table()["timm"] == timm.__version__:
        others = set(timm.list_models()) - set(names)
        assert names == [name for name in timm.list_models() if name not in others]
        assert 0 < len(others) < 20, "towers and detectors' backbones, which cannot be built with classes"
