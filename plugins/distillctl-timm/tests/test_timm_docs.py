"""The README has the options as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.testing import options_table
from distillctl_timm.table import find


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "ghostnet_100"])
def test_tables_of_options(name):
    table = options_table(find(name))
    assert table in Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8"), table
