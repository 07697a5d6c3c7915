from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.build.data import build_task, tta_kind, tta_sizes
from distillctl.errors import DataError, ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load


def test_images_without_labels_or_targets_are_refused_by_tasks_that_learn_from_them(tmp_path: Path) -> None:
    registry = Registry.load()
    (tmp_path / "p.toml").write_text('[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[train]\nepochs = 1\n')
    profile = load(tmp_path / "p.toml", registry=registry)
    pixels = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    named = ArrayImages(pixels, torch.tensor([0, 1, 0, 1]))
    for val, targets in ((ArrayImages(pixels), None), (ArrayImages(pixels, targets=torch.zeros(4)), torch.zeros(4))):
        splits = Splits(named, val, None, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(8))
        if targets is None:
            with pytest.raises(DataError, match="there are 4 images, but neither labels nor targets"):
                build_task(profile, registry, splits)
        else:
            build_task(profile, registry, splits)


def folder_of(tmp_path: Path, size: int, *lines: str) -> tuple[Any, Any]:
    """A profile with these keys of [evaluate], and a task of images of this size."""
    registry = Registry.load()
    text = '[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[train]\nepochs = 1\n[evaluate]\n' + "\n".join(lines)
    (tmp_path / "p.toml").write_text(text)
    profile = load(tmp_path / "p.toml", registry=registry)
    images = ArrayImages(torch.zeros(2, 1, 1, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    return profile, build_task(profile, registry, Splits(images, images, None, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(size)))


@pytest.mark.parametrize(
    ("size", "line", "sizes"),
    [
        (32, "", (24, 32, 40)),
        (95, "", (71, 95, 119)),
        (96, "", (64, 96, 128)),
        (224, "", (160, 224, 288)),
        (260, "", (192, 260, 320)),  # the view itself is not resized
        (224, "tta_scales = [1.1, 0.5]", (256, 128)),
        (224, "tta_scales = [1, 0.99, 0.1]", (224, 32)),
        (224, "tta_scales = [1.2, 1.25]", (256, 288)),
    ],
)
def test_sizes_of_several_scales(tmp_path: Path, size: int, line: str, sizes: tuple[int, ...]) -> None:
    profile, task = folder_of(tmp_path, size, line)
    assert tta_sizes(profile, task, "multi_scale") == sizes
    assert tta_sizes(profile, task, "flip") == ()
    assert "tta_scales" not in folder_of(tmp_path, size)[0].resolved["evaluate"]  # so that earlier runs keep their names


def test_scales_that_are_none_are_refused(tmp_path: Path) -> None:
    profile, task = folder_of(tmp_path, 224, "tta_scales = [1, 1.05]")
    with pytest.raises(ProfileError, match=r"at 224 pixels the factors 1, 1\.05 give that one alone"):
        tta_sizes(profile, task, "multi_scale")


def test_a_task_without_crops_of_files_is_shown_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, task = folder_of(tmp_path, 8)
    mirrored = type(task)(replace(task.data, view=View(8, augment="crop_flip")))
    files = FileImages(("a.png",), torch.tensor([0]))
    assert tta_kind(profile, mirrored, files, "auto") == "ten_crop"
    monkeypatch.setattr(type(task), "views", ("flip",))
    assert tta_kind(profile, mirrored, files, "auto") == "flip"


def test_what_mirrors_nothing_suits_images_that_training_never_mirrored(tmp_path: Path) -> None:
    profile, task = folder_of(tmp_path, 8, 'tta = "multi_scale"')
    mirrored = replace(task.data, view=View(8, augment="none"))
    still, images = type(task)(mirrored), task.data.val
    assert (tta_kind(profile, still, images, "multi_scale"), tta_kind(profile, still, images, "auto")) == ("multi_scale",) * 2
    with pytest.raises(
        ProfileError, match=r"`flip` mirrors images, .* may answer them wrongly: training on `digits` mirrors none"
    ) as error:
        tta_kind(profile, still, images, "flip")
    assert error.value.problems[0].hint == "leave it out, or take `--tta multi_scale`, which mirrors nothing"
    with pytest.raises(ProfileError, match="unknown test-time augmentation `mirror`"):
        tta_kind(profile, still, images, "mirror")


@pytest.mark.parametrize("kind", ["flip", "five_crop", "multi_scale"])
def test_views_of_unequal_sizes_are_not_augmented_in_tests(tmp_path: Path, kind: str) -> None:
    """Flipped, padding would lie where the image was, and crops and scales are made of squares."""
    profile, task = folder_of(tmp_path, 8)
    task.data = replace(task.data, view=replace(task.data.view, augment="crop_flip", largest=(8, 16)))
    with pytest.raises(ProfileError, match=f"`{kind}` needs views of one size"):
        tta_kind(profile, task, task.data.val, kind)
