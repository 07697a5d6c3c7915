from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.build.data import build_task
from distillctl.errors import DataError
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
