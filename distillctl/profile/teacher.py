"""The profile that trains a profile's teacher."""

from __future__ import annotations

from collections.abc import Mapping

from distillctl.errors import ProfileError
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.registry import Registry


def load_teacher_profile(profile: Profile, registry: Registry) -> Profile:
    """The profile that `teacher.profile` names, with `teacher.overrides`.

    Raises:
        ProfileError: it is wrong, or it is the profile that names it.
    """
    assert profile.teacher is not None
    table = profile.teacher.table
    assert table.profile is not None
    if table.profile.resolve() == profile.path.resolve():
        raise ProfileError(f"`teacher.profile` of `{profile.path}` is the profile itself", where=str(profile.path))
    return load(table.profile, registry=registry, overrides=dict(_flatten(table.overrides)))


def _flatten(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Nested tables as dotted keys: `{train = {epochs = 2}}` means the same as `{"train.epochs" = 2}`."""
    result: list[tuple[str, object]] = []
    for key, value in values.items():
        result += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return result
