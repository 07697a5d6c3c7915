"""The published runs on birds: the defaults of their pairs, and the terms of real networks as pytorch-classifier computes them.

There a network's features are the last outputs of its modules at strides 16 and 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.models.features import Tapped
from distillctl.plugin.registry import Registry, load, load_options
from distillctl.profile import reading
from distillctl.testing import make_batch, make_progress, make_setup

REGISTRY = Registry.load()
GHOST, MOBILE, RESNET, EFFICIENT = "timm/ghostnet_100", "mobilenet_v2", "torchvision/resnet50", "efficientnet_v2_s"
PROFILE = """
[dataset]
name = "cub200"
[student]
name = "{student}"
[teacher]
name = "{teacher}"
weights = "{weights}"
[method]
name = "{method}"
[optimizer]
name = "adamw"
lr = 1e-4
[train]
epochs = 150
"""


def profile(folder: Path, method: str, teacher: str, student: str) -> Any:
    path = folder / "profile.toml"
    weights = "default" if "timm" in teacher else "IMAGENET1K_V1"
    path.write_text(PROFILE.format(method=method, teacher=teacher, student=student, weights=weights))
    return reading.load(path, registry=REGISTRY)


@pytest.mark.parametrize(
    ("method", "teacher", "student", "weight"),
    [
        ("at", RESNET, MOBILE, 100.0),
        ("at", MOBILE, MOBILE, 100.0),
        ("at", RESNET, RESNET, 100.0),
        ("at", GHOST, MOBILE, 1000.0),
        ("at", GHOST, GHOST, 1000.0),
        ("sp", RESNET, MOBILE, 10.0),
        ("sp", GHOST, MOBILE, 10.0),
        ("mgd", RESNET, MOBILE, 1.633333e-4),
        ("mgd", EFFICIENT, MOBILE, 1.633333e-4),
        ("mgd", GHOST, MOBILE, 1.75e-5),
        ("soft-target", RESNET, MOBILE, 1.0),
    ],
)
def test_published_pairs_have_their_settings(tmp_path: Path, method: str, teacher: str, student: str, weight: float) -> None:
    found = profile(tmp_path, method, teacher, student)
    (choice,) = found.methods
    assert choice.table.weight == pytest.approx(weight, rel=1e-5)
    assert found.task_weight == 1.0
    stages = {network: ["blocks.6", "blocks.8"] if network == GHOST else ["stage3", "stage4"] for network in (teacher, student)}
    if method in ("at", "sp"):
        assert (choice.options.student_stages, choice.options.teacher_stages) == (stages[student], stages[teacher])
        assert getattr(choice.options, "row_norm", "l1") == "l1"
    if method == "mgd":
        assert (choice.options.student_stage, choice.options.teacher_stage) == ("last", "blocks.8" if teacher == GHOST else "last")
        assert choice.options.decay_biases
    if method == "soft-target":
        assert (choice.options.ratio, choice.options.temperature) == (0.7, 4.0)
    else:
        assert "pytorch-classifier" in found.origins["method.weight"]


@pytest.mark.parametrize(("method", "weight"), [("at", 1000.0), ("sp", 3000.0), ("mgd", 7e-5)])
def test_other_pairs_keep_the_papers(tmp_path: Path, method: str, weight: float) -> None:
    assert profile(tmp_path, method, RESNET, "resnet18").methods[0].table.weight == weight


# -- the terms ---------------------------------------------------------------------------------------------------------


def last_maps(network: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Stride → the last map, of a network whose trunk is a sequence of modules."""
    parts: Iterable[nn.Module] = network.features if isinstance(getattr(network, "features", None), nn.Sequential) else network.children()
    if hasattr(network, "blocks"):  # timm's GhostNet: the last block, a convolution to 960 channels, belongs to the pooling there
        parts = [network.conv_stem, network.bn1, network.act1, *list(network.blocks)[:-1]]
    found: dict[int, Tensor] = {}
    value = images
    for part in parts:
        value = part(value)
        if value.shape[-1] == 1 or isinstance(part, nn.AdaptiveAvgPool2d):
            break
        found[images.shape[-1] // value.shape[-1]] = value
    return found


def at_as_published(ours: Tensor, theirs: Tensor) -> Tensor:
    def attention(maps: Tensor) -> Tensor:
        rows = maps.double().square().mean(1).reshape(len(maps), -1)
        return rows / rows.square().sum(1, keepdim=True).sqrt()

    return (attention(ours) - attention(theirs)).square().mean()


def sp_as_published(ours: Tensor, theirs: Tensor) -> Tensor:
    def similar(maps: Tensor) -> Tensor:
        rows = maps.double().reshape(len(maps), -1)
        products = rows @ rows.T
        return products / products.abs().sum(1, keepdim=True)

    return (similar(theirs) - similar(ours)).square().sum() / len(ours) ** 2


@pytest.mark.parametrize(("method", "as_published"), [("at", at_as_published), ("sp", sp_as_published)])
@pytest.mark.parametrize(("teacher", "student"), [(RESNET, MOBILE), (GHOST, MOBILE)], ids=["resnet50", "ghostnet"])
def test_terms_are_the_published_ones(tmp_path: Path, method: str, as_published: Any, teacher: str, student: str) -> None:
    (choice,) = profile(tmp_path, method, teacher, student).methods
    wants = load(choice.spec.implementation, method).wants(choice.options)
    torch.manual_seed(0)
    sides, seen, maps = [], [], []
    images = torch.randn(4, 3, 64, 64)
    for name, names in ((student, wants.student), (teacher, wants.teacher)):
        spec = REGISTRY.models.get(name)
        model = load(spec.implementation, name)(spec.name, 7, load_options(spec)())
        tapped = Tapped(model, spec, names)
        sides.append(tapped.side(tapped.probe((3, 64, 64)), name))
        with torch.no_grad():
            # By the statistics of the batch: by those of an untrained network its last maps all but vanish.
            seen.append(tapped.train()(images))
            maps.append(last_maps(model, images))
    setup = make_setup({}, {})
    built = load(choice.spec.implementation, method)(choice.options, type(setup)(*sides, setup.num_classes, setup.labels))
    (term,) = built.terms(make_batch(setup, 4), *seen, make_progress()).values()
    expected = sum(as_published(maps[0][stride], maps[1][stride]) for stride in (16, 32))
    assert term.item() == pytest.approx(float(expected), rel=1e-4)
