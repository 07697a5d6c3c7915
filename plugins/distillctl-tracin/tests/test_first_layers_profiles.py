"""`profiles/first_layers/`: the published loss, a student that is the beginning of its teacher, and the commands up to the table."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from distillctl import cli, kd_loss
from distillctl.plugin.registry import Registry
from distillctl.plugin.registry import load as load_implementation
from distillctl.profile.reading import load

PROFILES = Path(__file__).parents[3] / "profiles"
NAMES = {"cifar10": 10, "cifar100": 100}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_snippet(name: str, registry: Registry) -> None:
    profile = load(PROFILES / "first_layers" / f"{name}.toml", registry=registry)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, NAMES[name], dtype=torch.float64)
    labels = torch.randint(NAMES[name], (6,))
    (method,) = profile.methods
    t, alpha = method.options.temperature, 0.7
    divergence = nn.KLDivLoss()  # whose default it is that the snippet has, and of which torch warns
    with pytest.warns(UserWarning, match="reduction: 'mean' divides the total loss by both"):
        softened = divergence(F.log_softmax(student / t, dim=1), F.softmax(teacher / t, dim=1))
    snippet = softened * (t * t * 2.0 * alpha) + F.cross_entropy(student, labels) * (1.0 - alpha)
    ours = method.table.weight * kd_loss(student, teacher, t, t) + profile.task_weight * F.cross_entropy(student, labels)
    torch.testing.assert_close(ours, snippet)


@pytest.mark.parametrize("name", NAMES)
def test_the_student_is_the_beginning_of_its_teacher(name: str, registry: Registry) -> None:
    student = load(PROFILES / "first_layers" / f"{name}.toml", registry=registry)
    teacher = load(PROFILES / "first_layers" / f"{name}_teacher.toml", registry=registry)
    shapes = []
    with torch.device("meta"):
        for profile in (student, teacher):
            choice = profile.student
            model = load_implementation(choice.spec.implementation, choice.spec.name)(choice.spec.name, NAMES[name], choice.options)
            shapes.append({key: value.shape for key, value in model.state_dict().items()})
    first, whole = shapes
    own = {key for key in whole if key.startswith(("conv1", "bn1", "layer1", "layer2"))}
    assert set(first) == own | {"fc.weight", "fc.bias"}
    assert all(first[key] == whole[key] for key in own)
    assert (student.train.keep_every, teacher.train.keep_every) == (2, 2)
    assert student.train.epochs == teacher.train.epochs
    assert student.resolved["dataset"] == teacher.resolved["dataset"]


@pytest.mark.slow
def test_from_the_teacher_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands in the header of a profile, on few images that a first convolution makes small."""
    text = (PROFILES / "first_layers" / "cifar100.toml").read_text(encoding="utf-8")
    commands = re.findall(r"^#     distillctl (.*)$", text, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["train", "tracin"]
    shutil.copytree(PROFILES, tmp_path / "profiles")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for c in range(100):
            folder = tmp_path / "data" / "cifar100" / split / f"{c:03d}"
            folder.mkdir(parents=True)
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    cut = ("train.epochs=2", "student.name=torchvision/resnet18", "student.small_images=false", "train.batch_size=50")
    sets = [part for value in cut for part in ("--set", value, "--set", f"teacher.overrides.{value}")]
    with contextlib.chdir(tmp_path):
        assert cli.run([*commands[0].split(), *sets, "--set", "teacher.allow_untrained=true", "--device", "cpu"]) == 0
        assert cli.run([*commands[1].split(), "--device", "cpu", "--topk", "10,50"]) == 0
        found = json.loads(Path("runs/first_layers/tracin/tracin.json").read_text())
    assert "teacher  runs/cifar100_teacher-" in capsys.readouterr().out.replace(str(tmp_path) + "/", "")
    assert [row["k"] for row in found["overlap"]] == [10, 50]
    assert list(found["run"]["rates"]) == ["2"]
