"""Pictures of images are of the right images, as the student sees them before they are normalised."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillctl.api.data import ArrayImages, FileImages, Images, Splits, View
from distillctl.builtin.classification_task import Classification
from distillctl.commands.pictures import SIDE, encoded, pictures_of, pixels
from distillctl.rundir.answers import Answers
from distillctl.testing.trees import write_image


def task_of(test: Images, size: int, channels: int = 3) -> Classification:
    view = View(size=size, augment="none")
    mean = (0.4,) * channels
    return Classification(Splits(train=test, val=None, test=test, classes=("a", "b"), mean=mean, std=(0.2,) * channels, view=view))


def answers(top: list[float]) -> Answers:
    sure = np.array(top, np.float32)
    both = np.stack([sure, 1 - sure], 1)
    return Answers(np.arange(len(top)), np.zeros(len(top), np.int64), np.array([[0, 1]] * len(top)), both, sure)


def test_the_most_different_images_in_memory() -> None:
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    task = task_of(ArrayImages(images, torch.tensor([0, 1, 0, 1])), 8)
    found = pictures_of(task, "test", answers([0.9, 0.8, 0.7, 0.6]), answers([0.9, 0.1, 0.6, 0.6]))
    assert found is not None
    assert (found.split, found.index) == ("test", (1, 2)), "those alike are left out"
    for place, file in zip(found.index, found.files, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), images[place].numpy()), "to the bit"


def test_other_images_have_no_pictures() -> None:
    task = task_of(ArrayImages(torch.zeros(3, 8, 8, 3, dtype=torch.uint8), torch.tensor([0, 1, 0])), 8)
    assert pictures_of(task, "test", answers([0.9, 0.8]), answers([0.1, 0.2])) is None, "the split has one image more"
    assert pictures_of(task, "test", answers([0.9, 0.8, 0.1]), answers([0.1, 0.2])) is None
    alike = pictures_of(task, "test", answers([0.9] * 3), answers([0.9] * 3))
    assert alike is not None
    assert alike.files == ()


def test_files_are_seen_as_in_an_evaluation(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", seed=number)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    task = task_of(FileImages(paths, torch.tensor([0, 1, 0])), 12)
    found = pixels(task, task.data.test, [2, 0])  # type: ignore[arg-type]
    assert [tuple(one.shape) for one in found] == [(3, 12, 12)] * 2
    assert all(one.dtype == torch.uint8 for one in found)
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], pixels(task, task.data.test, [0])[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "form", "size"), [(32, "PNG", 32), (SIDE, "JPEG", SIDE), (300, "JPEG", SIDE)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_stay_what_they_are_and_large_ones_become_small(side: int, form: str, size: int, channels: int) -> None:
    picture = Image.open(io.BytesIO(encoded(torch.full((channels, side, side), 90, dtype=torch.uint8))))
    assert (picture.format, picture.size) == (form, (size, size))
    assert abs(int(np.asarray(picture).mean()) - 90) <= 2
