"""The profiles of the benchmark: complete, valid, and all with its recipe."""

from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

FOLDER = Path(__file__).parents[3] / "profiles" / "cifar100"
PAIRS = {
    "wrn_40_2_wrn_16_2": ("wrn_40_2", "wrn_16_2"),
    "wrn_40_2_wrn_40_1": ("wrn_40_2", "wrn_40_1"),
    "resnet56_resnet20": ("resnet56", "resnet20"),
    "resnet110_resnet20": ("resnet110", "resnet20"),
    "resnet110_resnet32": ("resnet110", "resnet32"),
    "resnet32x4_resnet8x4": ("resnet32x4", "resnet8x4"),
    "vgg13_vgg8": ("vgg13", "vgg8"),
    "vgg13_MobileNetV2": ("vgg13", "MobileNetV2"),
    "ResNet50_MobileNetV2": ("ResNet50", "MobileNetV2"),
    "ResNet50_vgg8": ("ResNet50", "vgg8"),
    "resnet32x4_ShuffleV1": ("resnet32x4", "ShuffleV1"),
    "resnet32x4_ShuffleV2": ("resnet32x4", "ShuffleV2"),
    "wrn_40_2_ShuffleV1": ("wrn_40_2", "ShuffleV1"),
}
TEACHERS = {teacher for teacher, _ in PAIRS.values()}


@pytest.fixture(scope="module")
def registry():
    return Registry.load({"DISTILLCTL_PLUGINS": "cifar"})


def check_recipe(profile, student):
    assert profile.student.spec.qualified == f"cifar/{student}"
    assert profile.dataset.spec.name == "cifar100"
    assert profile.dataset.options.augment == "crop_flip"
    assert profile.dataset.options.val_fraction == 0
    assert (profile.train.epochs, profile.train.batch_size, profile.train.label_smoothing, profile.train.ema) == (240, 64, 0, 0)
    sgd = profile.optimizer.options
    assert profile.optimizer.spec.name == "sgd"
    small = student in ("MobileNetV2", "ShuffleV1", "ShuffleV2")
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay, sgd.decay) == (0.01 if small else 0.05, 0.9, False, 5e-4, "all")
    schedule = profile.schedule
    assert (schedule.name, schedule.gamma, schedule.warmup) == ("step", 0.1, 0)
    assert [share * 240 for share in schedule.milestones] == [150, 180, 210]


def header(file):
    return file.read_text(encoding="utf-8").split("\nseed = ")[0]


def test_no_file_is_forgotten():
    assert {f.stem for f in FOLDER.glob("*.toml")} == set(PAIRS)
    assert {f.stem for f in (FOLDER / "teachers").glob("*.toml")} == TEACHERS


@pytest.mark.parametrize("name", sorted(TEACHERS))
def test_teachers(name, registry):
    file = FOLDER / "teachers" / f"{name}.toml"
    profile = load(file, registry=registry)
    check_recipe(profile, name)
    assert profile.teacher is None
    assert [choice.spec.name for choice in profile.methods] == ["none"]
    assert f"distillctl train profiles/cifar100/teachers/{name}.toml" in header(file)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(name, registry):
    teacher, student = PAIRS[name]
    file = FOLDER / f"{name}.toml"
    profile = load(file, registry=registry)
    check_recipe(profile, student)
    assert profile.teacher.table.profile.resolve() == (FOLDER / "teachers" / f"{teacher}.toml").resolve()
    (method,) = profile.methods
    assert (method.spec.name, method.table.weight, method.options.temperature, profile.task_weight) == ("kd", 0.9, 4.0, 0.1)
    assert f"distillctl train profiles/cifar100/{name}.toml" in header(file)
    assert "published" in header(file)
