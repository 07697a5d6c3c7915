"""What differs between runs: settings that their results depend on, versions, machines, data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distillctl.analysis.records import RunRecord
from distillctl.errors import DataError, ProfileError
from distillctl.profile.problems import nearest
from distillctl.rundir.directory import text_hash
from distillctl.text import one_line

METHOD = "method"
"""The key of a run's methods: `kd`, `kd+at`."""
_ALIASES = {"student": "student.name", "data": "dataset.name", "dataset": "dataset.name"}
_METHOD_NAME = re.compile(r"method(\.\d+)?\.name")
_SEED = re.compile(r"seed|teacher(\.\d+)?\.overrides\.seed")
_TEACHER_RUN = re.compile(r"teacher(\.\d+)?\.run")

Kind = Literal["setting", "environment", "data"]


@dataclass(frozen=True)
class Differing:
    """A key with more than one value among runs.

    kind: a setting of the profile; the environment, such as versions and devices; or the data, which are compared between runs of one seed.
    values: each value as text, with the runs that have it; `not set` where a run does not have the key.
    """

    key: str
    kind: Kind
    values: Mapping[str, Sequence[RunRecord]]


@dataclass(frozen=True)
class Facts:
    """What one run is.

    settings: by dotted key what its result depends on, without seeds; its methods under `METHOD`.
    environment: versions, device, processes, changes that were accepted.
    data: what may depend on the seed: images, labels, the teacher's weights.
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunRecord) -> Facts:
        """Those of a run."""
        settings = {METHOD: run.method}
        for key, value in run.identity.items():
            if not (_SEED.fullmatch(key) or _METHOD_NAME.fullmatch(key)):
                settings[key] = _teacher_without_seed(run, value) if _TEACHER_RUN.fullmatch(key) else value
        info, told = run.info, run.environment
        environment = {f"package {name}": version for name, version in info.get("packages", {}).items()}
        environment |= {"python": told.get("python"), "device": told.get("device"), "processes": info.get("processes", 1)}
        if changes := info.get("changes"):
            environment["accepted changes"] = "; ".join(one_line(text) for note in changes for text in note.get("changes", ()))
        data = {f"data: {name}": text for name, text in info.get("data_listing", {}).items()}
        if isinstance(sizes := info.get("file_sizes"), dict):
            data |= {f"sizes of files: {name}": text for name, text in sizes.items()}
        data["skipped images"] = info.get("skipped")
        data["teacher's weights"] = str(sha)[:12] if (sha := info.get("teacher_sha256")) else None
        return cls(settings, environment, data)


def differing(runs: Sequence[tuple[RunRecord, Facts]]) -> list[Differing]:
    """Every key that differs.

    An option of one method is compared between runs of that method, and one of a teacher between runs that have a teacher: that a control
    has neither is no difference of its own. Data are compared between runs of one seed, since a seed may choose the splits.
    """
    found = []
    for key in _keys(runs, lambda facts: facts.settings):
        groups = [one for one in _comparable(key, runs) if len({text_of(facts.settings.get(key)) for _, facts in one}) > 1]
        if groups:
            found.append(_of(key, "setting", [one for group in groups for one in group], lambda facts: facts.settings))
    for key in _keys(runs, lambda facts: facts.environment):
        having = [one for one in runs if one[1].environment.get(key) is not None] if key != "accepted changes" else runs
        if len({text_of(facts.environment.get(key)) for _, facts in having}) > 1:
            found.append(_of(key, "environment", having, lambda facts: facts.environment))
    for key in _keys(runs, lambda facts: facts.data):
        taught = [one for one in runs if key != "teacher's weights" or one[1].data.get(key) is not None]
        for seed in sorted({run.seed for run, _ in taught}):
            same = [one for one in taught if one[0].seed == seed]
            if len({text_of(facts.data.get(key)) for _, facts in same}) > 1:
                found.append(_of(key, "data", same, lambda facts: facts.data))
                break
    return found


def key_of(name: str, runs: Sequence[tuple[RunRecord, Facts]]) -> str:
    """The key that somebody means: `method`, `student`, a dotted key or its last part, `device`, the name of a package.

    Raises:
        ProfileError: there is none, or there are several.
    """
    keys = [*_keys(runs, lambda facts: facts.settings), *_keys(runs, lambda facts: facts.environment)]
    name = _ALIASES.get(name, name)
    if name in keys:
        return name
    if f"package {name}" in keys:
        return f"package {name}"
    ending = [key for key in keys if key.rpartition(".")[2] == name]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ProfileError(f"`{name}` may mean {' or '.join(f'`{key}`' for key in ending)}", where="--by", hint="write the whole key")
    hint = nearest(name, keys) or "a key of the profile, such as `method`, `method.temperature` or `train.precision`"
    raise ProfileError(f"no run has a setting `{name}`", where="--by", hint=hint)


def value_of(key: str, facts: Facts) -> str:
    """A setting, or something of the environment, as text; empty where a run does not have it."""
    value = facts.settings.get(key, facts.environment.get(key))
    return "" if value is None else text_of(value)


def text_of(value: Any) -> str:
    """A value as one would write it, in short."""
    if value is None:
        return "not set"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return one_line(value if isinstance(value, str) else json.dumps(value, default=str))


def _comparable(key: str, runs: Sequence[tuple[RunRecord, Facts]]) -> list[list[tuple[RunRecord, Facts]]]:
    """Runs between which a key can differ."""
    table = key.partition(".")[0]
    if table == METHOD and key != METHOD:
        return [[one for one in runs if one[1].settings[METHOD] == method] for method in {facts.settings[METHOD] for _, facts in runs}]
    if table == "teacher":
        return [[one for one in runs if any(name.partition(".")[0] == table for name in one[1].settings)]]
    if len({text_of(facts.settings.get(f"{table}.name")) for _, facts in runs}) > 1:  # other models have other options
        return [[one for one in runs if key in one[1].settings]]
    return [list(runs)]


def _of(key: str, kind: Kind, runs: Sequence[tuple[RunRecord, Facts]], part: Callable[[Facts], Mapping[str, Any]]) -> Differing:
    values: dict[str, list[RunRecord]] = {}
    for run, facts in runs:
        values.setdefault(text_of(part(facts).get(key)), []).append(run)
    return Differing(key, kind, values)


def _keys(runs: Sequence[tuple[RunRecord, Facts]], part: Callable[[Facts], Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for _, facts in runs for key in part(facts)))


def _teacher_without_seed(run: RunRecord, path: Any) -> str:
    """A teacher's run by what it is but for its seed; its path where it is not there any more."""
    for folder in (Path(), Path(str(run.info.get("directory", "")))):
        try:
            teacher = RunRecord.read(folder / str(path))
        except DataError:
            continue
        settings = {key: value for key, value in teacher.identity.items() if not _SEED.fullmatch(key)}
        return f"{teacher.name}-{text_hash(json.dumps(settings, sort_keys=True, default=str))[:8]}"
    return str(path)
