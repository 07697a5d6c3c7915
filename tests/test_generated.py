"""What `tests/generate.py` writes is current, and a new folder in `plugins/` changes all of it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distillctl.plugin.registry import Registry

ROOT = Path(__file__).parents[1]
MADE = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "generate.py")))


@pytest.mark.parametrize("path", [MADE.PYPROJECT, MADE.README, MADE.KNOWN], ids=lambda path: path.name)
def test_what_is_generated_is_current(path):
    assert path.read_text(encoding="utf-8") == MADE.generated()[path], "uv run python tests/generate.py"


def test_what_is_installed_is_what_lies_in_the_folders():
    def provided(registry):
        return {
            (title, catalog.plugin(spec).package, spec.qualified)
            for title, catalog in registry.catalogs.items()
            for spec in catalog
            if catalog.plugin(spec).package in MADE.folders()
        }

    assert provided(Registry.load({})) == provided(MADE.registry())


PLUGIN = """
from distillctl import MethodSpec, TrackerSpec, hookimpl

@hookimpl
def register_method():
    return MethodSpec(name="newest", kind="logits", summary="for | tests", implementation="nowhere:Nothing")

@hookimpl
def register_tracker():
    return [TrackerSpec(name=f"tracker{i}", summary="for tests", implementation="nowhere:Nothing") for i in range(6)]
"""


def test_a_new_folder_needs_no_other_edit(tmp_path, monkeypatch):
    folder = tmp_path / "plugins" / "distillctl-newest"
    (folder / "distillctl_newest").mkdir(parents=True)
    (folder / "distillctl_newest" / "plugin.py").write_text(PLUGIN)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "distillctl-newest"\nversion = "1"\nentry-points.distillctl.newest = "distillctl_newest.plugin"\n'
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = MADE.generated(tmp_path)
    assert '    # plugins\n    "distillctl-newest",\n    # /plugins\n' in made[MADE.PYPROJECT]
    assert "# sources\ndistillctl-newest = { workspace = true }\n# /sources\n" in made[MADE.PYPROJECT]
    assert json.loads(made[MADE.KNOWN]) == {
        "method": {"distillctl-newest": ["newest"]},
        "tracker": {"distillctl-newest": [f"tracker{i}" for i in range(6)]},
    }
    assert "\n| `newest` | logits | for \\| tests |  | `distillctl-newest` |\n" in made[MADE.README]
    assert "| 3, and labels alone |" in made[MADE.README], "kd, soft-target and the new one"
    shown = "trackers: `tracker0`, `tracker1`, `tracker2`, `tracker3` and 2 more |\n"
    assert f"| [`distillctl-newest`](plugins/distillctl-newest/README.md) | methods: `newest`; {shown}" in made[MADE.README]
