"""The profiles on birds: the published recipe, value by value."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

FOLDER = Path(__file__).parents[3] / "profiles"


@pytest.fixture(scope="module")
def registry():
    return Registry.load({"DISTILLCTL_PLUGINS": "cub,mgd"})


@pytest.mark.parametrize(
    ("name", "student", "weights"), [("cub_mgd", "mobilenet_v2", "IMAGENET1K_V1"), ("cub_resnet50", "resnet50", "IMAGENET1K_V2")]
)
def test_both_train_by_the_recipe(registry, name, student, weights):
    profile = load(FOLDER / f"{name}.toml", registry=registry)
    assert (profile.student.spec.qualified, profile.student.table.weights) == (f"torchvision/{student}", weights)
    data = profile.dataset
    assert (data.spec.name, data.options.split, data.options.augment) == ("cub200", "seeded", "autoaugment")
    assert (data.options.image_size, data.options.resize, data.options.eval_resize) == (224, 0, 0)  # 0: 246 and 224, see the splits' test
    assert profile.optimizer.spec.name == "adamw"
    adam = profile.optimizer.options
    assert (adam.lr, adam.beta1, adam.beta2, adam.weight_decay, adam.decay) == (1e-4, 0.9, 0.999, 5e-4, "weights")
    schedule = profile.schedule
    assert (schedule.name, schedule.warmup, schedule.warmup_lr, schedule.min_lr) == ("cosine", 0.05, 1e-6, 1e-6)
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
