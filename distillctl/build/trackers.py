"""The trackers that a profile names."""

from __future__ import annotations

from distillctl.api.tracker import Tracker
from distillctl.build.methods import numbered
from distillctl.plugin.registry import load_class
from distillctl.profile.schema import Profile


def build_trackers(profile: Profile) -> dict[str, Tracker]:
    """The trackers by name; a second one of a name is called `NAME-2`.

    Raises:
        PluginError: what a package names is not a tracker.
    """
    names = numbered(choice.spec.name for choice in profile.trackers)
    return {name: load_class(choice.spec, Tracker, "tracker")(choice.options) for name, choice in zip(names, profile.trackers, strict=True)}
