"""`profiles/README.md`: every row is a command, has the published values, and trains an epoch on made-up images in the official layout."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from distillctl import cli
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.trees import write_image

ROOT = Path(__file__).parents[1]
README = ROOT / "profiles" / "README.md"
FOLDERS = ("tiny_imagenet/",)

# Command behind `distillctl train profiles/` → student, learning rate, images in a batch, DOT's delta, and what the method's table says.
KD_TINY = {"name": "kd", "weight": 0.9, "task_weight": 0.1, "temperature": 4.0}
ROWS = {
    "tiny_imagenet/ResNet18_MobileNetV2.toml": ("tiny_mobilenet_v2", 0.2, 256, None, KD_TINY),
    "tiny_imagenet/ResNet18_MobileNetV2.toml --set optimizer.name=dot": ("tiny_mobilenet_v2", 0.2, 256, 0.075, KD_TINY),
    "tiny_imagenet/ResNet18_ShuffleV2.toml": ("ShuffleV2", 0.2, 256, None, KD_TINY),
    "tiny_imagenet/ResNet18_ShuffleV2.toml --set optimizer.name=dot": ("ShuffleV2", 0.2, 256, 0.075, KD_TINY),
}


def commands() -> list[str]:
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S) for line in block.splitlines()
    ]
    assert all(line.startswith("distillctl train profiles/") for line in lines)
    return [line.removeprefix("distillctl train profiles/") for line in lines]


def test_the_rows_are_these():
    assert sorted(commands()) == sorted(ROWS)


def test_no_profile_is_forgotten():
    files = {f"{folder}{path.name}" for folder in FOLDERS for path in (ROOT / "profiles" / folder).glob("*.toml")}
    assert files == {row.split()[0] for row in ROWS}


@pytest.fixture(scope="module")
def registry():
    return Registry.load({})


def read(row, registry):
    """The profile of a row, with its options."""
    file, *options = shlex.split(row)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    overrides = [value for flag, value in pairs if flag == "--set"]
    method = next((value for flag, value in pairs if flag == "--method"), None)
    return load(ROOT / "profiles" / file, overrides=overrides, registry=registry, method=method)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_published_values(row, registry):
    student, lr, batch, delta, method = ROWS[row]
    profile = read(row, registry)
    assert profile.student.spec.name == student
    assert (profile.optimizer.options.lr, profile.optimizer.options.momentum, profile.train.batch_size) == (lr, 0.9, batch)
    assert profile.optimizer.spec.name == ("sgd" if delta is None else "dot")
    assert delta is None or profile.optimizer.options.delta == delta
    (choice,) = profile.methods
    table = {"name": choice.spec.name, "task_weight": profile.task_weight, **choice.table.model_dump(), **choice.options.model_dump()}
    assert {key: table[key] for key in method} == method
    schedule = profile.schedule
    assert (schedule.name, schedule.gamma, schedule.warmup) == ("step", 0.1, 0)
    assert [round(share * profile.train.epochs) for share in schedule.milestones] == [60, 120, 160]
    assert (profile.train.epochs, profile.optimizer.options.weight_decay, profile.optimizer.options.decay) == (200, 5e-4, "all")
    data = profile.dataset.options
    assert (profile.dataset.spec.name, data.val_fraction, data.image_size, data.augment, data.rotation) == (
        "tiny-imagenet",
        0,
        64,
        "crop_flip",
        20,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the profiles and made-up images where they look for them."""
    path = tmp_path_factory.mktemp("profiles")
    shutil.copytree(ROOT / "profiles", path / "profiles")
    tiny = path / "data" / "tiny-imagenet-200"
    lines = []
    for number, name in enumerate(("n01443537", "n02124075", "n07749582")):
        for i in range(4):
            write_image(tiny / "train" / name / "images" / f"{name}_{i}.JPEG", seed=10 * number + i)
        write_image(tiny / "val" / "images" / f"val_{number}.JPEG", seed=100 + number)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
    (tiny / "val" / "val_annotations.txt").write_text("".join(lines))
    (tiny / "wnids.txt").write_text("n07749582\nn01443537\nn02124075\n")
    return path


CUT = ("train.epochs=1", "train.batch_size=6", "train.workers=0", "dataset.image_size=32")
OF_TEACHERS = ("allow_untrained=true", *(f"overrides.{cut}" for cut in CUT))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_trains(row, place):
    cut = [*CUT, *(f"teacher.{key}" for key in OF_TEACHERS)]
    with contextlib.chdir(place):
        assert cli.run(["train", *shlex.split(f"profiles/{row}"), *(part for value in cut for part in ("--set", value))]) == 0
    newest = max(place.glob("runs/*/run.json"), key=lambda file: file.stat().st_mtime_ns)
    result = json.loads(newest.read_text())
    assert result["state"] == "finished"
    records = [json.loads(line) for line in (newest.parent / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 1
