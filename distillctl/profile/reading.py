"""From a file to one checked `Profile`: `load`, `load_teacher_profile` and `from_resolved`.

Core tables are checked first, then each plugin's keys against its own options, and all problems are told together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.checking import Check
from distillctl.profile.document import (
    COMMAND_LINE,
    Document,
    Edit,
    edited,
    flat_overrides,
    parse_edit,
    split_key,
    with_method,
    with_one_teacher,
    with_teacher,
    with_trackers,
)
from distillctl.profile.identity import digest_of
from distillctl.profile.methods import Methods, check_mixed, check_unlabelled
from distillctl.profile.presets import Pair, names_of
from distillctl.profile.problems import Problems
from distillctl.profile.published_table import read_published
from distillctl.profile.schema import DatasetChoice, EvaluateTable, Profile, TrainTable
from distillctl.profile.tables import (
    check_rates,
    check_top_level,
    read_core_table,
    read_dataset,
    read_optimizer,
    read_schedule,
    read_seed,
    read_student,
    read_sweep,
    read_trackers,
)
from distillctl.profile.teacher import Teachers, check_need_of_teacher, is_control, read_teachers
from distillctl.text import printable

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
    track: Sequence[str] = (),
) -> Profile:
    """Reads and checks a profile.

    overrides: `KEY=VALUE` with a dotted key and a value in TOML (or a bare string), or a mapping of dotted keys.
    method: replaces all method tables by this method with its own defaults.
    teacher: replaces the teacher's weights: a run directory, a `.toml` profile, or a file of weights.
    seed: replaces `seed`.
    track: names of trackers beside those of the profile.

    Raises:
        ProfileError: with every problem of the profile, each with its place.
    """
    document = Document.read(Path(path))
    if method is not None:
        document = with_method(document, method)
    if teacher is not None:
        document = with_teacher(document, str(teacher))
    if seed is not None:
        document = document.stating(("seed",), seed, f"--seed {seed}")
    document = with_trackers(document, track)
    edits: Iterable[Edit | str] = overrides if not isinstance(overrides, Mapping) else [_edit(*item) for item in overrides.items()]
    return _checked(document, edits, registry)


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
    overrides = flat_overrides(table.overrides)
    other = load(table.profile, registry=registry, overrides=overrides)
    places = _places_of_data(profile, other)
    return load(table.profile, registry=registry, overrides={**places, **overrides}) if places else other


def _places_of_data(profile: Profile, other: Profile) -> dict[str, object]:
    """Where the command line says that the data are, for the teacher's profile, if it is trained on the same data set."""
    if (profile.dataset.spec, profile.dataset.task) != (other.dataset.spec, other.dataset.task):
        return {}
    stated = [name for name in type(profile.dataset.options).model_fields if profile.origins.get(f"dataset.{name}") == COMMAND_LINE]
    values = {name: getattr(profile.dataset.options, name) for name in stated}
    return {f"dataset.{k}": str(v) if isinstance(v, Path) else v for k, v in values.items() if isinstance(v, Path) or k == "download"}


def from_resolved(
    path: str | Path, registry: Registry, *, student_only: bool = False, with_teacher: bool = False, overrides: Sequence[str] = ()
) -> Profile:
    """Reads the resolved profile of a run: the file, or the run directory. Files that it names need not be there any more.

    student_only: leave out teacher, methods and optimizer, whose packages an evaluation does not need.
    with_teacher: keep the teacher all the same.
    overrides: `KEY=VALUE`, as for `load`.

    Raises:
        ProfileError: it cannot be read, or a plugin does not take its values any more.
    """
    path = Path(path)
    document = Document.read(path / "resolved.toml" if path.is_dir() else path)
    for name in ("teacher", "method", "optimizer", "tracker") if student_only else ():
        if name == "teacher" and with_teacher:
            continue
        document = document.without((name,))
    return _checked(document, overrides, registry, trusted=True)


def from_tables(data: Mapping[str, Any], registry: Registry) -> Profile:
    """The profile that these tables are, as those of a file would be. Files that they name need not be there.

    Raises:
        ProfileError: with every problem.
    """
    return _checked(Document(Path("profile.toml"), b"", data, {}), (), registry, trusted=True)


def _edit(name: str, value: object) -> Edit:
    parts = split_key(name)
    if parts is None:
        raise ProfileError(f"`{name}` is no dotted key")
    return Edit(parts, value, f"override of {name}")


def _checked(document: Document, edits: Iterable[Edit | str], registry: Registry, *, trusted: bool = False) -> Profile:
    problems = Problems()
    check = Check(with_edits(document, edits, problems), registry, problems, trusted)
    profile = _profile(check, ())
    if profile is None:
        raise ProfileError(problems.found)
    return profile


def with_edits(document: Document, edits: Iterable[Edit | str], problems: Problems) -> Document:
    """The document with all edits that can be made; for each of the others, a problem is noted."""
    for edit in edits:
        try:
            document = edited(document, parse_edit(edit) if isinstance(edit, str) else edit)
        except ProfileError as error:
            problems.add(error.problems[0])
    return with_one_teacher(document)


def _profile(check: Check, above: tuple[Path, ...]) -> Profile | None:
    """The checked profile; None if there are problems. above: the files whose teachers led here."""
    document = check.document
    chain = (*above, document.path.resolve())
    check_top_level(check)
    seed = read_seed(check)
    dataset = read_dataset(check)
    student, student_spec = read_student(check)
    has_teacher = "teacher" in document.data and not is_control(check)
    teachers = read_teachers(check, lambda path, edits: student_of(check, path, edits, chain)) if has_teacher else Teachers()
    pair = Pair(_names_of_dataset(dataset), _names_of_teachers(check.registry, teachers.names), names_of(student_spec))
    labelled = dataset is None or dataset.task not in check.registry.tasks or check.registry.tasks.get(dataset.task).labelled
    methods = Methods(check, pair, labelled=labelled, teachers=len(teachers.names))
    left_out = check.trusted and "method" not in document.data  # for an evaluation, which may ask the teacher all the same
    if (labelled or methods.teach) and not left_out:
        check_need_of_teacher(check, methods, has_teacher)
    optimizer = read_optimizer(check)
    check_rates(check, optimizer, student_spec)
    schedule = read_schedule(check)
    train = read_core_table(check, "train", TrainTable)
    check_mixed(check, methods, train)
    if not labelled:
        check_unlabelled(check, methods, train)
    evaluate = read_core_table(check, "evaluate", EvaluateTable)
    trackers = read_trackers(check)
    task = check.registry.tasks.get(dataset.task) if dataset is not None and dataset.task in check.registry.tasks else None
    published = read_published(check, () if task is None else task.figures)
    sweep = read_sweep(check)
    if check.problems.found:
        return None
    assert dataset is not None
    assert student is not None
    assert optimizer is not None
    assert schedule is not None
    assert train is not None
    assert evaluate is not None
    assert sweep is not None
    _check_text(check)
    return Profile(
        path=document.path,
        text=document.text,
        seed=seed,
        dataset=dataset,
        student=student,
        teachers=teachers.choices,
        methods=methods.choices,
        task_weight=methods.task_weight,
        optimizer=optimizer,
        schedule=schedule,
        train=train,
        evaluate=evaluate,
        resolved=check.resolved,
        origins=check.origins,
        digest=digest_of(check.resolved),
        trackers=trackers,
        published=published,
        sweep=sweep,
    )


def _names_of_dataset(dataset: DatasetChoice | None) -> tuple[str, ...]:
    return names_of(dataset.spec, dataset.spec.family or getattr(dataset.options, "family", "")) if dataset else ()


def _names_of_teachers(registry: Registry, names: Sequence[str]) -> tuple[str, ...]:
    """By which a preset may mean all of them: several of one model are meant as one is."""
    first, *others = [_names_of_teacher(registry, name) for name in names] or [()]
    return tuple(name for name in first if all(name in other for other in others))


def _names_of_teacher(registry: Registry, name: str) -> tuple[str, ...]:
    """Of a model that need not be installed; empty where none is known."""
    spec = registry.models.get(name) if name in registry.models else None
    return names_of(spec) or ((name.rpartition("/")[2],) if name else ())


def student_of(check: Check, path: Path, edits: list[Edit], chain: tuple[Path, ...]) -> str:
    """Checks the profile of a teacher, whose problems are told as this one's; gives the name of its student."""
    if path.resolve() in chain:
        check.complain("`teacher.profile` leads back to a profile that is trained with this teacher", ("teacher", "profile"))
        return ""
    if len(chain) >= MAX_CHAIN:
        check.complain(f"`teacher.profile` leads through more than {MAX_CHAIN} profiles", ("teacher", "profile"))
        return ""
    try:
        document = Document.read(path)
    except ProfileError as error:
        check.problems.add_all(error.problems)
        return ""
    problems = Problems()
    document = with_edits(document, edits, problems)
    _profile(Check(document, check.registry, problems), chain)
    check.problems.add_all(problems.found)
    name = document.get(("student", "name"))
    return name if isinstance(name, str) else ""


def _check_text(check: Check) -> None:
    """A path from the command line or the current directory may hold bytes that are not text; TOML and the run's files hold text.

    Raises:
        ProfileError: there is such a value.
    """
    try:
        json.dumps(check.resolved, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        part = printable(error.object[max(0, error.start - 40) : error.end + 10])
        raise ProfileError(f"a value is not text in UTF-8: `{part}`", where=printable(str(check.document.path))) from None
