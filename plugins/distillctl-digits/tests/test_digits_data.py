from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from distillctl.testing import DatasetContract, options_table
from distillctl_digits.data import build
from distillctl_digits.options import DigitsOptions
from distillctl_digits.plugin import DIGITS


class TestContract(DatasetContract):
    spec = DIGITS


class TestCroppedContract(DatasetContract):
    spec = DIGITS
    options = {"augment": "crop_flip", "val_fraction": 0.0, "test_fraction": 0.5}


def test_pixels_are_those_of_scikit_learn():
    raw = load_digits()
    splits = build(DigitsOptions(val_fraction=0.0, test_fraction=0.0), 0)
    assert (splits.val, splits.test) == (None, None)
    assert splits.train.images.shape == (1797, 8, 8, 3)  # what networks of the model zoos take
    assert torch.equal(splits.train.labels, torch.from_numpy(raw.target).long())
    assert bool((splits.train.images == splits.train.images[..., :1]).all())
    back = splits.train.images[..., 0].double() * 16 / 255
    assert float((back - torch.from_numpy(raw.images)).abs().max()) < 0.5 * 16 / 255 + 1e-9
    assert int(splits.train.images.max()) == 255


def test_parts_are_floors_of_every_class():
    splits = build(DigitsOptions(), 0)
    total = torch.bincount(torch.from_numpy(load_digits().target), minlength=10)
    test = total * 25 // 100
    val = (total - test) * 15 // 100
    assert torch.equal(torch.bincount(splits.test.labels), test)
    assert torch.equal(torch.bincount(splits.val.labels), val)
    assert torch.equal(torch.bincount(splits.train.labels), total - test - val)


def test_statistics_are_measured_on_the_training_part_alone():
    a, b = build(DigitsOptions(), 0), build(DigitsOptions(), 1)
    for splits in (a, b):
        values = [v / 255 for v in splits.train.images.flatten().tolist()]
        mean = sum(values) / len(values)
        assert splits.mean == pytest.approx([mean] * 3, rel=1e-9)
        assert splits.std == pytest.approx([(sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5] * 3, rel=1e-9)
    assert a.mean != b.mean


def test_declaring_it_imports_neither_torch_nor_scikit_learn():
    code = "import sys, distillctl_digits.plugin, distillctl_digits.options; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_readme_lists_the_options():
    assert options_table(DIGITS) in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
