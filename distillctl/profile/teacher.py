"""The profile that trains a profile's teacher."""

from __future__ import annotations

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.overrides import flat_overrides
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile


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
    return load(table.profile, registry=registry, overrides=flat_overrides(table.overrides))
