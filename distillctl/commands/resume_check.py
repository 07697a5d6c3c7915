"""What must not have changed when a run goes on: profile, data, teacher, packages, number of processes. A line for each change.

With `--accept-change` a run goes on all the same, and `run.json` says so permanently.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import torch

from distillctl import __version__
from distillctl.api.data import ArrayImages, Images, LazyTargets, Splits
from distillctl.api.task import Task
from distillctl.data.inspection import file_states
from distillctl.data.splits import content_hash, exact, listing_hash
from distillctl.errors import DataError, Problem
from distillctl.files import write_text
from distillctl.plugin.registry import Registry
from distillctl.profile.identity import identity
from distillctl.profile.schema import MethodChoice, Profile
from distillctl.profile.writing import write_toml
from distillctl.rundir.directory import RunDirectory, now, text_hash

_HINT = "`--accept-change` goes on all the same and notes it in the run for good; `--fresh` starts anew beside it"
_IMAGES = ("train", "val", "test", "labelled")
_SHOWN = 60  # characters of a value
_MOST = 20  # lines
_WORDS = {
    "packages": "the package",
    "data_listing": "the data",
    "file_sizes": "the sizes of the files in",
    "file_times": "the times at which files were changed (a copy may have others) in",
    "skipped": "the number of broken files that are left out of",
    "teacher_profile": "the teacher's profile",
    "teacher_sha256": "the teacher's weights",
    "processes": "the number of processes",
}
_OF_FILES = ("file_sizes", "file_times", "skipped")
_OLD_WHITE = 65535  # before it was measured
_HASH = re.compile(r"[0-9a-f]{64}")


def packages(profile: Profile, registry: Registry) -> dict[str, str]:
    """Versions of what a run is computed with: the packages of its names, distillctl and torch."""
    plugins = [registry.datasets.plugin(profile.dataset.spec), registry.models.plugin(profile.student.spec)]
    plugins += [registry.optimizers.plugin(profile.optimizer.spec)]
    plugins += [registry.tasks.plugin(registry.tasks.get(profile.dataset.task))]
    plugins += [registry.models.plugin(teacher.spec) for teacher in profile.teachers if teacher.spec is not None]
    choices: list[MethodChoice] = list(profile.methods)
    while choices:
        choice = choices.pop()
        plugins.append(registry.methods.plugin(choice.spec))
        if choice.inner is not None:
            choices.append(choice.inner)
    found = {plugin.package: plugin.version for plugin in plugins}
    found |= {"distillctl": __version__, "torch": str(torch.__version__), "torchvision": version("torchvision")}
    return dict(sorted(found.items()))


def listing(splits: Splits, names: Sequence[str] = _IMAGES) -> dict[str, str]:
    """Number and hash of the images of these splits, and of the classes: of names and labels for files, of pixels and labels in memory."""
    result = {name: _listing(images) for name in names if (images := getattr(splits, name)) is not None}
    return {**result, "classes": f"{splits.num_classes}, {listing_hash(splits.classes)}"}


def file_facts(splits: Splits) -> dict[str, dict[str, str]]:
    """Sizes and times of change of the files of every split, since names alone do not tell that an image is another now."""
    found = {name: images for name in _IMAGES if (images := getattr(splits, name)) is not None}
    files = {name: images.paths for name, images in found.items() if not isinstance(images, ArrayImages)}
    states = {name: file_states(paths) for name, paths in files.items()}
    return {
        "file_sizes": {n: f"{sum(s for s, _ in found)} bytes, {listing_hash(str(s) for s, _ in found)}" for n, found in states.items()},
        "file_times": {n: f"newest {_time(found)}, {listing_hash(str(t) for _, t in found)}" for n, found in states.items()},
    }


def _time(states: Sequence[tuple[int, int]]) -> str:
    newest = max((time_ns for _, time_ns in states), default=0)
    return datetime.fromtimestamp(newest // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _listing(images: Images) -> str:
    if not isinstance(images, ArrayImages):
        # Two folders up, the class and the file, tell images apart; where the data lie does not matter.
        names = ("/".join(PurePath(str(path)).parts[-2:]) for path in images.paths)
        lazy = isinstance(images.targets, LazyTargets)
        targets = [] if images.targets is None or lazy else [exact(one) for one in images.targets]
        stated = [column for column in (images.labels.tolist(), targets) if column]
        if images.groups is not None:
            stated.append(images.groups.tolist())
        lines = (" ".join(map(str, row)) for row in zip(names, *stated, strict=True))
        return f"{len(images)} images, {listing_hash([images.targets.digest(), *lines] if lazy else lines)}"
    return f"{len(images)} images, {content_hash(images)}"


def measured_white(run: RunDirectory) -> float | None:
    """The white that the run has for grey of more than 8 bits, stated or measured when it began; None if that cannot be read."""
    try:
        return float(tomllib.loads(run.resolved.read_text(encoding="utf-8"))["dataset"].get("white", _OLD_WHITE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def changed_profile(run: RunDirectory, profile: Profile) -> list[str]:
    """Every value in which a profile differs from the one of a run, as `key: old → new`."""
    if run.info().get("digest") == profile.digest:
        return []
    try:
        before = identity(tomllib.loads(run.resolved.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ["the profile, which cannot be compared"]
    after = identity(profile.resolved)
    for key in {"dataset.white", "dataset.num_classes"} - after.keys():  # they were found, and stay
        before.pop(key, None)
    keys = [key for key in sorted({*before, *after}) if _differ(before, after, key) and not _moved(before.get(key), after.get(key))]
    return [f"`{key}`: {_text(before, key)} → {_text(after, key)}" for key in keys]


def changed(run: RunDirectory, facts: Mapping[str, Any]) -> list[str]:
    """Every fact of the run that is another now, as `what: old → new`. Facts that the run does not know are not compared.

    facts: keys of `run.json` with their values now; mappings are compared entry by entry.
    """
    info = run.info()
    lines = []
    told: set[str] = set()  # splits: of other images, other sizes go without saying, and of other sizes, other times
    for name, value in facts.items():
        if name not in info:
            continue
        before = info[name]
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            keys = [key for key in sorted({*before, *value}) if _differ(before, value, key) and not (name in _OF_FILES and key in told)]
            lines += [f"{_WORDS[name]} `{key}`: {_text(before, key)} → {_text(value, key)}" for key in keys]
            if name in ("data_listing", *_OF_FILES):
                told.update(keys)
        elif before != value:
            lines.append(f"{_WORDS[name]}: {_text(info, name)} → {_text(facts, name)}")
    return lines


def changed_images(run: RunDirectory, task: Task, split: str) -> list[str]:
    """What of the classes and of one split is not what the run was trained with, as `what: old → new`."""
    known, now_there = run.info().get("data_listing", {}), listing(task.data, (split, "labelled"))
    return [
        f"the data `{key}`: {_text(known, key)} → {_text(now_there, key)}"
        for key in ("classes", split, "labelled")
        if key in known and known[key] != now_there.get(key)
    ]


def refuse(run: RunDirectory, lines: list[str], hint: str = _HINT) -> None:
    """Ends the command if there are changes.

    Raises:
        DataError: with a problem for each line.
    """
    if lines:
        problems = [Problem(f"changed since `{run.path}` began: {line}") for line in lines[:_MOST]]
        if len(lines) > _MOST:
            problems.append(Problem(f"{len(lines) - _MOST} more changes since `{run.path}` began"))
        problems[-1] = Problem(problems[-1].message, hint=hint)
        raise DataError(problems)


def adopt(run: RunDirectory, profile: Profile, facts: Mapping[str, Any], lines: list[str]) -> None:
    """Makes a run that goes on one of this profile; accepted changes are written down for good.

    Called when its checkpoint has been restored, so that a change with which it cannot go on leaves it as it was.
    """
    info = run.info()
    text = write_toml(profile.resolved)
    values: dict[str, Any] = {}
    if info.get("digest") != profile.digest:  # a change, or the same run from another directory
        values = {"digest": profile.digest, "digests": [d for d in run.digests if d != profile.digest]}
    if lines:
        note = {"at": now(), "epoch": info.get("epoch"), "changes": lines}
        values |= {**facts, "changes": [*info.get("changes", ()), note]}
    if info.get("state") == "finished":  # until it is again
        values["state"] = "running"
    if info.get("resolved_sha256") != text_hash(text):
        values["resolved_sha256"] = text_hash(text)
    if values:
        run.update(**values)
    if run.resolved.read_text(encoding="utf-8") != text:
        write_text(run.resolved, text)


def _differ(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> bool:
    return key not in before or key not in after or before[key] != after[key]


def _moved(before: Any, after: Any) -> bool:
    """Whether two paths are one below the current directory, from which `after` counts, and below that of the run's beginning."""
    if not isinstance(before, str) or not isinstance(after, str):
        return False
    old, new = PurePath(before), PurePath(after)
    return old.is_absolute() and not new.is_absolute() and old.parts[-len(new.parts) :] == new.parts


def _text(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "nothing"
    text = str(values[key])
    if _HASH.fullmatch(text):
        return text[:12]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
