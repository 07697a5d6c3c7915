"""Two runs are the same run if every value that their result depends on is the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.identity import digest_of, identity
from distillctl.profile.reading import load

EXEMPT = {"train.workers", "train.save_every"}
PROFILE = """
seed = 1
[dataset]
name = "digits"
limit = 300
[student]
name = "resnet8"
dropout = 0.1
[teacher]
name = "resnet14"
checkpoint = "teacher.pt"
[[method]]
name = "ctkd"
task_weight = 1.0
[method.inner]
name = "dkd"
[[method]]
name = "crd"
[optimizer]
name = "adamw"
[schedule]
name = "step"
milestones = [0.5, 0.75]
warmup = 0.1
[train]
epochs = 3
ema = 0.9
[[tracker]]
name = "csv"
"""


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("identity")
    (folder / "teacher.pt").touch()
    (folder / "profile.toml").write_text(PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        profile = load(Path("profile.toml"), registry=Registry.load())
        assert digest_of(profile.resolved) == profile.digest
        return dict(profile.resolved)


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [*value, 0.9]


def leaves(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) and value else None
    if items is None:
        return [way]
    return [place for key, item in items for place in leaves(item, (*way, key))]


def changed(resolved: dict[str, Any], way: tuple[Any, ...]) -> dict[str, Any]:
    result = copy.deepcopy(resolved)
    place: Any = result
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = other(place[way[-1]])
    return result


def test_every_value_is_part_of_what_a_run_is_but_for_those_that_change_nothing(resolved: dict[str, Any]) -> None:
    blind = set()
    for way in leaves(resolved):
        if digest_of(changed(resolved, way)) == digest_of(resolved):
            blind.add(".".join(str(part) for part in way))
    assert blind == EXEMPT | {"tracker.0.name", "tracker.0.separator"}
    assert len(leaves(resolved)) > 60


def test_a_key_that_comes_or_goes_changes_what_a_run_is(resolved: dict[str, Any]) -> None:
    for table in resolved:
        if table != "tracker":
            assert digest_of({name: value for name, value in resolved.items() if name != table}) != digest_of(resolved), table
    assert digest_of({**resolved, "new": 1}) != digest_of(resolved)


def test_the_identity_names_every_value_once(resolved: dict[str, Any]) -> None:
    names = [".".join(str(part) for part in way) for way in leaves(resolved)]
    assert set(identity(resolved)) == {name for name in names if not name.startswith("tracker")} - EXEMPT


def test_where_images_are_kept_makes_no_other_run() -> None:
    kept = [{"dataset": {"name": "imagefolder", "root": root, **more}} for root, more in (("a", {}), ("a", {"cache": "ram"}), ("b", {}))]
    plain, cached, other_data = map(digest_of, kept)
    assert plain == cached != other_data
