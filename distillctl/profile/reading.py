"""From a file to one checked `Profile`: `load`, `from_resolved`, and the way back, `write_toml`.

Core tables are checked first, then each plugin's keys against its own options, and all problems are told together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.builder import Builder, digest_of
from distillctl.profile.method_tables import MethodTables
from distillctl.profile.overrides import Edit, apply, parse_edit, replace_method, replace_teacher, split_key
from distillctl.profile.parsing import parse, read_bytes
from distillctl.profile.presets import Pair, names_of
from distillctl.profile.schema import Profile
from distillctl.profile.source import Source
from distillctl.profile.tables import read_dataset, read_evaluate, read_optimizer, read_schedule, read_student, read_trackers, read_train
from distillctl.profile.teacher_table import OtherProfile, TeacherResult, model_name, read_teacher
from distillctl.profile.top_level import check_need_of_teacher, check_top_level, is_control, read_seed
from distillctl.profile.writing import write_toml
from distillctl.text import printable

__all__ = ["from_resolved", "load", "write_toml"]

MAX_CHAIN = 8
"""Profiles that may lead to one another by `teacher.profile`."""


def load(
    path: str | Path,
    *,
    registry: Registry,
    overrides: Sequence[str] | Mapping[str, object] = (),
    method: str | None = None,
    teacher: str | Path | None = None,
    seed: int | None = None,
) -> Profile:
    """Reads and checks a profile.

    overrides: `KEY=VALUE` with a dotted key and a value in TOML (or a bare string), or a mapping of dotted keys.
    method: replaces all method tables by this method with its own defaults.
    teacher: replaces the teacher's weights: a run directory, a `.toml` profile, or a file of weights.
    seed: replaces `seed`.

    Raises:
        ProfileError: with every problem of the profile, each with its place.
    """
    path = Path(path)
    text = read_bytes(path)
    source = parse(text, path)
    if method is not None:
        replace_method(source, method)
    if teacher is not None:
        replace_teacher(source, str(teacher))
    if seed is not None:
        source.state(("seed",), seed, f"--seed {seed}")
    _apply(source, overrides)
    profile = _check(source, registry, text, (path.resolve(),))
    if profile is None:
        raise ProfileError(source.problems)
    return profile


def from_resolved(path: str | Path, registry: Registry, *, student_only: bool = False) -> Profile:
    """Reads the resolved profile of a run: the file, or the run directory. Files that it names need not be there any more.

    student_only: leave out teacher, methods and optimizer, whose packages an evaluation does not need.

    Raises:
        ProfileError: it cannot be read, or a plugin does not take its values any more.
    """
    path = Path(path)
    path = path / "resolved.toml" if path.is_dir() else path
    text = read_bytes(path)
    source = parse(text, path)
    source.trusted = True
    if student_only:
        for name in ("teacher", "method", "optimizer", "tracker"):
            source.data.pop(name, None)
    profile = _check(source, registry, text, (path.resolve(),))
    if profile is None:
        raise ProfileError(source.problems)
    return profile


def _apply(source: Source, overrides: Sequence[str] | Mapping[str, object]) -> None:
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            parts = split_key(name)
            if parts is None:
                raise ProfileError(f"`{name}` is no dotted key")
            apply(source, Edit(parts, value, f"override of {name}"))
        return
    for text in overrides:
        edit = parse_edit(text, source)
        if edit is not None:
            apply(source, edit)


def _check(source: Source, registry: Registry, text: bytes, chain: tuple[Path, ...]) -> Profile | None:
    """The checked profile; None if the source has problems. chain: the files whose teachers led here."""
    builder = Builder(source, registry)
    check_top_level(source)
    seed = read_seed(builder)
    dataset, dataset_data = read_dataset(builder)
    student, student_data, student_spec = read_student(builder)

    def read_other(path: Path, edits: list[Edit]) -> OtherProfile:
        return _read_teacher_profile(path, edits, registry, source, chain)

    control = is_control(source, registry)
    has_teacher = "teacher" in source.data and not control
    result = read_teacher(builder, read_other) if has_teacher else TeacherResult()
    teacher_spec = model_name(builder, result.name)
    pair = Pair(
        dataset=names_of(dataset.spec, dataset.spec.family or getattr(dataset.options, "family", "")) if dataset else (),
        teacher=names_of(teacher_spec) or ((result.name.rpartition("/")[2],) if result.name else ()),
        student=names_of(student_spec),
    )
    methods = MethodTables(builder, pair)
    check_need_of_teacher(source, methods, has_teacher)
    optimizer, optimizer_data = read_optimizer(builder)
    schedule, schedule_data = read_schedule(builder)
    train, train_data = read_train(builder)
    evaluate, evaluate_data = read_evaluate(builder)
    trackers, tracker_data = read_trackers(builder)
    if source.problems:
        return None
    assert dataset is not None
    assert student is not None
    assert optimizer is not None
    assert schedule is not None
    assert train is not None
    assert evaluate is not None
    resolved: dict[str, Any] = {"seed": seed, "dataset": dataset_data, "student": student_data}
    if result.data is not None:
        resolved["teacher"] = result.data
    resolved["method"] = methods.data[0] if isinstance(source.data.get("method", {}), dict) or not source.data["method"] else methods.data
    resolved |= {"optimizer": optimizer_data, "schedule": schedule_data, "train": train_data, "evaluate": evaluate_data}
    if tracker_data:
        resolved["tracker"] = tracker_data
    _check_text(resolved, source)
    return Profile(
        path=source.path,
        text=text,
        seed=seed,
        dataset=dataset,
        student=student,
        teacher=result.choice,
        methods=tuple(methods.choices),
        task_weight=methods.task_weight,
        optimizer=optimizer,
        schedule=schedule,
        train=train,
        evaluate=evaluate,
        resolved=resolved,
        origins=builder.origins,
        digest=digest_of(resolved),
        trackers=trackers,
    )


def _check_text(resolved: Mapping[str, Any], source: Source) -> None:
    """A path from the command line or the current directory may hold bytes that are no text; TOML and the run's files hold text.

    Raises:
        ProfileError: there is such a value.
    """
    try:
        json.dumps(resolved, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        part = printable(error.object[max(0, error.start - 40) : error.end + 10])
        raise ProfileError(f"a value is not text in UTF-8: `{part}`", where=printable(source.shown)) from None


def _read_teacher_profile(path: Path, edits: list[Edit], registry: Registry, source: Source, chain: tuple[Path, ...]) -> OtherProfile:
    if path.resolve() in chain:
        source.complain("`teacher.profile` leads back to a profile that is trained with this teacher", ("teacher", "profile"))
        return OtherProfile("", ())
    if len(chain) >= MAX_CHAIN:
        source.complain(f"`teacher.profile` leads through more than {MAX_CHAIN} profiles", ("teacher", "profile"))
        return OtherProfile("", ())
    try:
        text = read_bytes(path)
        other = parse(text, path)
    except ProfileError as error:
        return OtherProfile("", error.problems)
    for edit in edits:
        apply(other, edit)
    _check(other, registry, text, (*chain, path.resolve()))
    name = other.get(("student", "name"))
    return OtherProfile(name if isinstance(name, str) else "", tuple(other.problems))
