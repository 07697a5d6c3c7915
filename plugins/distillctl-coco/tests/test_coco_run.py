"""A whole run on images with boxes: batches in pieces, evaluation, and going on after an interruption."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from distillctl import DataError, ProfileError, Tracker
from distillctl.commands.train import train
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.trees import write_image
from distillctl_cifar.builder import build as cifar

PROFILE = """
seed = 3
[dataset]
name = "counted"
root = "data"
image_size = 32
augment = "jitter"
[student]
name = "resnet8"
[method]
name = "none"
[train]
epochs = 3
batch_size = 6
accumulate = 2
workers = 0
"""
NAMES = [{"id": 4, "name": "ant"}, {"id": 9, "name": "bee"}]


def write(root, boxes=((0, 0, 24, 20), (4, 4, 12, 9), (1, 2, 3, 4))):
    for split, first in (("train", 0), ("val", 50)):
        numbers = range(first, first + 11)
        images = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in numbers]
        for one in images:
            write_image(root / "images" / one["file_name"], seed=one["id"])
        annotations = [{"image_id": n, "category_id": 4 + 5 * (k > 0), "bbox": boxes[k]} for n in numbers for k in range(n % 4)]
        (root / f"instances_{split}.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": NAMES}))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    registry = Registry.load()
    registry.add(Plugin("counting", "counting", "0"), lambda: importlib.import_module("counting"))
    assert not registry.broken
    write(tmp_path / "data")
    (tmp_path / "boxes.toml").write_text(PROFILE)

    def trained(root, tracker=None, *overrides):
        profile = load("boxes.toml", registry=registry, overrides=overrides)
        return train(profile, registry, tracker or Tracker(), device="cpu", root=tmp_path / root)

    return trained


class Stops(Tracker):
    def epoch(self, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_goes_on_exactly(run):
    with pytest.raises(KeyboardInterrupt):
        run("stopped", Stops())
    paths = [run("stopped").path, run("straight").path]
    one, other = (torch.load(path / "checkpoints" / "last.pt", weights_only=True)["student"] for path in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)
    stopped, straight = ([json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in paths)
    assert [record["val"] for record in stopped] == [record["val"] for record in straight]
    assert len(straight) == 3
    assert straight[0]["val"]["count"] == 11
    assert straight[0]["val"]["map"] > 0  # an ant is as large as its picture
    assert straight[0]["terms"]["task.count"] > 0
    told = json.loads((paths[1] / "model.json").read_text())
    assert (told["classes"], told["class_ids"]) == (["ant", "bee"], [4, 9])
    assert told["input"]["canvas"] == [124, 116, 104]
    assert "joint" not in told["input"]


def test_a_run_does_not_go_on_with_other_boxes(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("runs", Stops())
    write(tmp_path / "data", boxes=((0, 0, 24, 20), (4, 4, 12, 9), (1, 2, 3, 4.5)))
    with pytest.raises(DataError, match=r"changed since .* began: the data `train`"):
        run("runs")


SIDES = ("dataset.resize=sides", "dataset.short_sides=[32, 40]", "dataset.long_side=64", "dataset.image_size=640", "dataset.augment=flip")


@pytest.mark.slow
def test_views_of_unequal_sizes_are_for_any_task_and_stop_where_they_stopped(run):
    with pytest.raises(KeyboardInterrupt):
        run("stopped", Stops(), *SIDES)
    paths = [run("stopped", None, *SIDES).path, run("straight", None, *SIDES).path]
    one, other = (torch.load(path / "checkpoints" / "last.pt", weights_only=True)["student"] for path in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)


TEACHER = ("teacher.name=resnet8", "teacher.checkpoint=teacher.pt", "teacher.allow_untrained=true", "method.name=fitnet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("train.compile=on",), "the shapes in a step on `counted` depend on its images"),
        ((*TEACHER, "teacher.image_size=64"), "`teacher.image_size` resizes square views, and those of this data set differ in size"),
    ],
)
def test_what_needs_views_of_one_size_is_refused(run, tmp_path, options, message):
    torch.save(cifar("resnet8", 1).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(ProfileError, match=message):
        run("runs", None, *SIDES, *options)
