"""Torchvision's models as we build them: values of stages, plain logits, pretrained weights from torch's cache."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from pydantic import ValidationError

from distillctl.api.options import Options
from distillctl.builtin import torchvision as declared
from distillctl.builtin.torchvision_models import build, load_weights
from distillctl.builtin.torchvision_options import DropoutOptions, InceptionOptions, MaxVitOptions, VitOptions
from distillctl.errors import DataError, ProfileError
from distillctl.models.features import Tapped
from distillctl.plugin.registry import load
from distillctl.weights.state_dict import load_into

SPECS = {spec.name: spec for spec in declared.register_model()}


def built(name, classes=5, **options):
    spec = SPECS[name]
    torch.manual_seed(0)
    return build(name, classes, load(spec.options, name)(**options) if spec.options else Options())


POOLED = [
    "resnet18", "mobilenet_v2", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0", "googlenet", "swin_t",
]  # fmt: skip


@pytest.mark.parametrize("name", POOLED)
def test_deepest_stage_is_the_map_that_is_pooled(name):
    spec, model = SPECS[name], built(name).eval()
    tapped = Tapped(model, spec, ["stem", "stages", "pooled"])
    tapped.probe((3, 64, 64))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = tapped(images)
        torch.testing.assert_close(features["stage4"].mean((2, 3)), features["pooled"])
        tapped.close()
        torch.testing.assert_close(model(images), features["logits"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_ends_after_a_stage_and_starts_from_the_whole_one(name):
    whole, spec = built(name).eval(), SPECS[name].ending_after(2)
    assert list(spec.stages) == ["stem", "stage1", "stage2", "stage1:pre", "stage2:pre"]
    cut = built(name, 7, stages=2)
    notes = load_into(cut, whole.state_dict(), what="student", classifier="fc", allow_new_classifier=True)
    assert [note.partition(" tensors")[2] or note for note in notes] == [
        " of the file that the model does not have were left out (first `layer3.0.conv1.weight`)",
        "the file's classifier `fc` for 5 classes was left out: it starts untrained",
    ]
    images = torch.randn(2, 3, 64, 64)
    one, other = Tapped(cut.eval(), spec, ["stages", "last", "pooled"]), Tapped(whole, SPECS[name], ["stage1", "stage2"])
    with torch.no_grad():
        mine, theirs = one(images), other(images)
    for stage in ("stage1", "stage2"):
        assert torch.equal(mine[stage], theirs[stage])
    assert torch.equal(mine["last"], theirs["stage2"])
    torch.testing.assert_close(mine["pooled"], theirs["stage2"].mean((2, 3)))
    assert mine["logits"].shape == (2, 7)


def test_small_images_keep_their_size_in_the_stem():
    small, usual = built("resnet18", small_images=True), built("resnet18")
    shapes = Tapped(small, SPECS["resnet18"], ["stem", "stages"]).probe((3, 32, 32))
    assert shapes["stem"] == (64, 32, 32)
    assert [shapes[f"stage{number}"][1] for number in (1, 2, 3, 4)] == [32, 16, 8, 4]
    assert float(small.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    own = small.conv1.weight.clone()
    notes = load_into(
        small, usual.state_dict(), what="student", classifier="fc", allow_new_classifier=True, replaceable=SPECS["resnet18"].replaceable
    )
    assert notes == ["the file's `conv1.weight` of shape (64, 3, 7, 7) was left out for the own of (64, 3, 3, 3), which starts untrained"]
    assert torch.equal(small.conv1.weight, own)
    assert torch.equal(small.layer4[1].conv2.weight, usual.layer4[1].conv2.weight)
    with pytest.raises(DataError, match="1 has another shape"):
        load_into(small, usual.state_dict(), what="teacher", classifier="fc")


def test_densenet_keeps_what_its_functional_relu_overwrites():
    tapped = Tapped(built("densenet121").eval(), SPECS["densenet121"], ["stage4", "pooled"])
    tapped.probe((3, 64, 64))
    with torch.no_grad():
        features = tapped(torch.randn(2, 3, 64, 64))
    assert features["stage4"].min() < 0
    torch.testing.assert_close(features["stage4"].relu().mean((2, 3)), features["pooled"])


def test_vgg_stages_and_what_lies_before_them():
    tapped = Tapped(built("vgg11_bn", 3).eval(), SPECS["vgg11_bn"], [*SPECS["vgg11_bn"].stages])
    tapped.probe((3, 32, 32))
    with torch.no_grad():
        features = tapped(torch.randn(2, 3, 32, 32))
    for number in (1, 2, 3):
        assert features[f"stage{number}:pre"].min() < 0
        assert torch.equal(features[f"stage{number}:pre"].relu(), features[f"stage{number}"])
    assert torch.equal(torch.nn.functional.max_pool2d(features["stage3"], 2), features["stage4"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_logits_are_plain_while_training(name):
    with torch.device("meta"):
        model = built(name).train()
        logits = model(torch.zeros(2, 3, 299, 299))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 5)
    assert model.transform_input is True
    assert not [key for key in model.state_dict() if key.startswith(("aux", "Aux"))]


def test_same_seed_same_weights():
    a, b = built("squeezenet1_1"), built("squeezenet1_1")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_image_sizes_that_do_not_suit():
    with pytest.raises(ProfileError, match="multiple of its patch of 16 pixels, not 100"):
        build("vit_b_16", 5, VitOptions(image_size=100))
    with pytest.raises(ValidationError, match="Input should be a multiple of 224"):
        MaxVitOptions(image_size=256)


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.1"])
def test_dropout_bounds(value):
    with pytest.raises(ValidationError, match=r"for DropoutOptions\ndropout\n"):
        DropoutOptions(dropout=value)
    assert build("squeezenet1_1", 2, DropoutOptions(dropout=0.0)).classifier[0].p == 0
    assert build("squeezenet1_1", 2, DropoutOptions()).classifier[0].p == 0.5


# Pretrained weights. The cache is a folder of the test, and nothing is fetched.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("the network is not for tests"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def file_of(cache, name, weights="IMAGENET1K_V1"):
    return cache / Path(torchvision.models.get_model_weights(name)[weights].url).name


def test_weights_from_the_cache(cache):
    model = built("squeezenet1_1", 1000)
    torch.save(model.state_dict(), file_of(cache, "squeezenet1_1"))
    state = load_weights("squeezenet1_1", "IMAGENET1K_V1")
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    student = built("squeezenet1_1", 4)
    notes = load_into(student, state, what="student `squeezenet1_1`", allow_new_classifier=True)
    assert notes == ["the file's classifier `classifier.1` for 1000 classes was left out: it starts untrained"]


def test_auxiliary_heads_of_a_file_are_left_out(cache):
    torch.manual_seed(0)
    full = torchvision.models.googlenet(num_classes=10, aux_logits=True, init_weights=False)
    torch.save(full.state_dict(), file_of(cache, "googlenet"))
    state = load_weights("googlenet", "IMAGENET1K_V1")
    model = build("googlenet", 10, InceptionOptions(transform_input=False))
    assert load_into(model, state, what="teacher `googlenet`") == []
    assert load_into(model, full.state_dict(), what="teacher `googlenet`") == []  # the same from a file that a profile names
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(images), full.eval()(images))


def test_old_names_of_densenet(cache):
    with torch.device("meta"):
        model = built("densenet121", 10)
    new = {name: torch.full(value.shape, 0.5) for name, value in model.state_dict().items() if value.numel() < 5000}
    old = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: v for name, v in new.items()}
    assert set(old) != set(new)
    torch.save(old, file_of(cache, "densenet121"))
    state = load_weights("densenet121", "IMAGENET1K_V1")
    assert set(new) <= set(state) <= set(model.state_dict())


def test_weights_that_do_not_exist(cache):
    with pytest.raises(DataError, match="`resnet18` has no weights called `IMAGENET21K`") as caught:
        load_weights("resnet18", "IMAGENET21K")
    assert "IMAGENET1K_V1" in caught.value.problems[0].hint


def test_download_into_the_cache(cache, monkeypatch):
    seen = []

    def download(url, path, digest, progress):
        seen.append((url, digest))
        torch.save({"fc.bias": torch.ones(2)}, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    cache.rmdir()
    for _ in range(2):  # the second time the file is there
        assert set(load_weights("resnet18", "IMAGENET1K_V1")) == {"fc.bias"}
    assert seen == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out"), RuntimeError("invalid hash value")])
def test_no_network_says_where_the_file_belongs(error, cache, monkeypatch):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(DataError, match=r"cannot be downloaded from https://.*resnet18-f37072fd\.pth") as caught:
        load_weights("resnet18", "IMAGENET1K_V1")
    assert str(cache / "resnet18-f37072fd.pth") in caught.value.problems[0].hint


def test_damaged_file_in_the_cache(cache):
    file_of(cache, "resnet18").write_bytes(b"half a fi")
    with pytest.raises(DataError, match="resnet18-f37072fd"):
        load_weights("resnet18", "IMAGENET1K_V1")
