"""The profiles on birds: the published recipe, value by value."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.engine.schedule import schedule
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

FOLDER = Path(__file__).parents[3] / "profiles"


PUBLISHED = ("distilled", "mobilenet_v2", "resnet50", "ghostnet", "efficientnet_v2_s")
"""The profiles in `cub`."""


@pytest.fixture(scope="module")
def registry():
    return Registry.load({"DISTILLCTL_PLUGINS": "cub,mgd,timm"})


@pytest.mark.parametrize(
    ("name", "student", "weights", "warmup"),
    [
        ("cub_mgd", "torchvision/mobilenet_v2", "IMAGENET1K_V1", 0.05),
        ("cub_resnet50", "torchvision/resnet50", "IMAGENET1K_V2", 0.05),
        ("cub/distilled", "torchvision/mobilenet_v2", "IMAGENET1K_V1", 0.046667),
        ("cub/mobilenet_v2", "torchvision/mobilenet_v2", "IMAGENET1K_V1", 0.046667),
        ("cub/resnet50", "torchvision/resnet50", "IMAGENET1K_V1", 0.046667),
        ("cub/ghostnet", "timm/ghostnet_100", "default", 0.046667),
        ("cub/efficientnet_v2_s", "torchvision/efficientnet_v2_s", "IMAGENET1K_V1", 0.046667),
    ],
)
def test_all_train_by_the_recipe(registry, name, student, weights, warmup):
    profile = load(FOLDER / f"{name}.toml", registry=registry)
    assert (profile.student.spec.qualified, profile.student.table.weights) == (student, weights)
    data = profile.dataset
    assert (data.spec.name, data.options.split, data.options.augment) == ("cub200", "seeded", "autoaugment")
    assert (data.options.image_size, data.options.resize, data.options.eval_resize) == (224, 0, 0)  # 0: 246 and 224, see the splits' test
    assert profile.optimizer.spec.name == "adamw"
    adam = profile.optimizer.options
    assert (adam.lr, adam.beta1, adam.beta2, adam.weight_decay, adam.decay) == (1e-4, 0.9, 0.999, 5e-4, "weights")
    schedule = profile.schedule
    assert (schedule.name, schedule.warmup, schedule.warmup_lr, schedule.min_lr) == ("cosine", warmup, 1e-6, 1e-6)
    assert (profile.train.epochs, profile.train.batch_size, profile.train.label_smoothing, profile.train.ema) == (150, 64, 0.1, 0)
    assert (profile.evaluate.tta, profile.evaluate.tta_resize) == ("ten_crop", 0)


def test_the_student_learns_by_mgd_from_the_other_profile(registry):
    profile = load(FOLDER / "cub_mgd.toml", registry=registry)
    assert profile.teacher.table.profile.resolve() == (FOLDER / "cub_resnet50.toml").resolve()
    (method,) = profile.methods
    assert method.spec.name == "mgd"
    assert method.table.weight == pytest.approx(7e-5 * 0.7 / 0.3, rel=1e-4)
    assert profile.task_weight == 1.0
    options = method.options
    assert (options.mask, options.mask_ratio, options.normalize) == ("channel", 0.15, "sum")
    assert (options.student_stage, options.teacher_stage) == ("last", "last")
    assert options.decay_biases


def test_the_teacher_learns_from_labels_alone(registry):
    profile = load(FOLDER / "cub_resnet50.toml", registry=registry)
    assert profile.teacher is None
    assert [method.spec.name for method in profile.methods] == ["none"]
    assert profile.task_weight == 1.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_rate_swings_and_the_run_stops_early(registry, name):
    """Up in 7 epochs, then ten down and ten up, again and again."""
    profile = load(FOLDER / "cub" / f"{name}.toml", registry=registry)
    table = profile.schedule
    rate = schedule(
        "cosine", 1e-4, min_lr=1e-6, cycles=table.cycles, wave=table.cycle == "wave", warmup=table.warmup, warmup_lr=table.warmup_lr
    )
    found = [rate(epoch / 150) for epoch in (0, 7, 12, 17, 27, 37, 147)]
    assert found == pytest.approx([1e-6, 1e-4, 5.05e-5, 1e-6, 1e-4, 1e-6, 1e-4], rel=1e-3)
    assert profile.train.patience == 30


def test_the_profiles_in_cub_are_all_looked_at():
    assert {path.stem for path in (FOLDER / "cub").glob("*.toml")} == {*PUBLISHED, "patient"}  # of the last nothing is published here


@pytest.mark.parametrize("name", ["cub_mgd", "cub_resnet50"])
def test_the_older_profiles_go_down_once_to_the_end(registry, name):
    profile = load(FOLDER / f"{name}.toml", registry=registry)
    assert (profile.schedule.cycles, profile.train.patience) == (None, None)


def test_the_pairs_are_taught_by_the_published_teacher(registry):
    profile = load(FOLDER / "cub" / "distilled.toml", registry=registry)
    assert profile.teacher.table.profile.resolve() == (FOLDER / "cub" / "resnet50.toml").resolve()
    (method,) = profile.methods
    assert (method.spec.name, method.options.ratio, method.options.temperature, profile.task_weight) == ("soft-target", 0.7, 4.0, 1.0)
