"""The trackers that a profile names."""

from __future__ import annotations

from collections import Counter

from distillctl.api.tracker import Tracker
from distillctl.plugin.registry import load_class
from distillctl.profile.schema import Profile


def build_trackers(profile: Profile) -> dict[str, Tracker]:
    """The trackers by name; a second one of a name is called `NAME-2`.

    Raises:
        PluginError: what a package names is not a tracker.
    """
    result: dict[str, Tracker] = {}
    seen: Counter[str] = Counter()
    for choice in profile.trackers:
        name = choice.spec.name
        cls = load_class(choice.spec, Tracker, "tracker")
        seen[name] += 1
        result[name if seen[name] == 1 else f"{name}-{seen[name]}"] = cls(choice.options)
    return result
