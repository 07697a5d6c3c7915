"""The profiles on COCO: the published recipe, value by value, and every row of `profiles/README.md` passes `check`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from distillctl import cli
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

FOLDER = Path(__file__).parents[3] / "profiles"
PAIRS = {  # student, the parts of it that are trained, the weight of ReviewKD
    "coco_r101_r18": ("resnet18", 3, 1.2),
    "coco_r101_r50": ("resnet50", 3, 1.0),
    "coco_r50_mobilenet_v2": ("mobilenet_v2", 5, 2.0),
}
TEACHER = "coco_r101"
TRAINING_IMAGES = 118_287
ROWS = re.findall(r"^distillctl train profiles/(coco_.*)$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load({"DISTILLCTL_PLUGINS": "coco,detection,reviewkd,dkd"})


def read(name: str, registry: Registry, **more: Any) -> Any:
    return load(FOLDER / f"{name}.toml", registry=registry, **more)


def test_no_profile_is_forgotten() -> None:
    assert {path.stem for path in FOLDER.glob("coco_r*.toml")} == {*PAIRS, TEACHER} == {row.split(".")[0] for row in ROWS}


@pytest.mark.parametrize("name", [*PAIRS, TEACHER])
def test_images_and_optimizer_are_the_published_ones(registry: Registry, name: str) -> None:
    profile = read(name, registry)
    data, sgd = profile.dataset.options, profile.optimizer.options
    assert (data.resize, data.short_sides, data.long_side, data.augment) == ("sides", [640, 672, 704, 736, 768, 800], 1333, "flip")
    assert (data.val, data.val_fraction, data.test) == ("", 0, "annotations/instances_val2017.json")
    assert (profile.optimizer.spec.name, sgd.momentum, sgd.nesterov, sgd.weight_decay, sgd.decay) == ("sgd", 0.9, False, 1e-4, "all")
    assert sgd.lr * 8 == 0.01 * profile.train.batch_size
    assert profile.evaluate.batch_size == profile.train.batch_size  # the default is made for small images
    options = profile.student.options
    assert (profile.student.table.weights, options.frozen_norm, options.width, options.box_samples) == ("imagenet", True, 256, 512)


@pytest.mark.parametrize(
    ("name", "steps", "milestones", "batch"),
    [(TEACHER, 270_000, (210_000, 250_000), 16), *((pair, 180_000, (120_000, 160_000), 8) for pair in PAIRS)],
)
def test_the_rate_falls_as_published(registry: Registry, name: str, steps: int, milestones: tuple[int, ...], batch: int) -> None:
    profile = read(name, registry)
    table = profile.schedule
    assert (table.name, table.gamma, profile.train.batch_size) == ("step", 0.1, batch)
    assert table.milestones == pytest.approx([milestone / steps for milestone in milestones], abs=1e-4)
    assert table.warmup == pytest.approx(1000 / steps, abs=1e-4)
    assert table.warmup_lr == pytest.approx(profile.optimizer.options.lr / 1000)
    assert profile.train.epochs == round(steps * batch / TRAINING_IMAGES)


@pytest.mark.parametrize("name", PAIRS)
def test_the_pair_and_its_methods_are_the_published_ones(registry: Registry, name: str) -> None:
    backbone, trained, weight = PAIRS[name]
    profile = read(name, registry)
    assert (profile.student.options.backbone, profile.student.options.trained_stages) == (backbone, trained)
    review, dkd = profile.methods
    assert (review.spec.name, review.table.weight, review.table.warmup_epochs, profile.task_weight) == ("reviewkd", weight, 0, 1)
    assert (review.options.student_stages, review.options.teacher_stages, review.options.pooled) == (["stages"], ["stages"], False)
    assert (dkd.spec.name, dkd.table.weight, dkd.table.warmup_epochs) == ("dkd", 1, 0)
    assert (dkd.options.alpha, dkd.options.beta, dkd.options.temperature) == (1.0, 0.25, 1.0)


def test_a_method_alone_has_the_values_that_are_published_on_coco(registry: Registry) -> None:
    """The profile's own weight is dropped with its method, so that the default must be this pair's."""
    (review,) = read("coco_r101_r50", registry, method="reviewkd").methods
    assert (review.table.weight, review.table.warmup_epochs, review.options.pooled) == (1.0, 0, False)
    (dkd,) = read("coco_r101_r18", registry, method="dkd").methods
    assert (dkd.options.beta, dkd.options.temperature, dkd.table.warmup_epochs) == (0.25, 1.0, 0)


def test_teachers(registry: Registry) -> None:
    assert read(TEACHER, registry).student.options.backbone == "resnet101"
    assert read(TEACHER, registry).student.options.trained_stages == 3
    for name in PAIRS:
        teacher = read(name, registry).teacher
        if "r101" in name:
            assert teacher.table.profile.resolve() == (FOLDER / f"{TEACHER}.toml").resolve()
        else:
            assert (teacher.table.weights, teacher.options.backbone, teacher.options.frozen_norm) == ("coco", "resnet50", True)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_readme_passes_check(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "data" / "coco" / "annotations"
    annotations.mkdir(parents=True)
    for split in ("train", "val"):
        (annotations / f"instances_{split}2017.json").write_text('{"images": [], "annotations": [], "categories": []}')
        (tmp_path / "data" / "coco" / f"{split}2017").mkdir()
    monkeypatch.chdir(tmp_path)
    file, *options = shlex.split(row)
    assert cli.run(["check", str(FOLDER / file), *options]) == 0
    said = capsys.readouterr().out
    assert "instances_train2017.json" in said
    assert "test `" in said
    assert "val `" not in said
