"""Whatever stands in a profile, reading it gives a `Profile` or a `ProfileError`, and a `Profile` survives the way back."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillctl import ProfileError
from distillctl.profile.reading import from_resolved, load
from distillctl.profile.schema import DatasetTable, EvaluateTable, MethodTable, ScheduleTable, StudentTable, TeacherTable, TrainTable
from distillctl.profile.writing import write_toml

NAMES = (
    "kd dk wrap feat none lost toy small big vgg13 sgd adamw step cosine bf16 auto flip V1 teacher.pth teacher.toml profile.toml runs/done"
)
WORDS = [*NAMES.split(), "", "\x1b[0m", "x" * 300]
SCALARS = (
    st.sampled_from(WORDS)
    | st.integers(-2, 3)
    | st.sampled_from([0.0, 0.5, 1.0, float("nan"), float("inf"), 2**70, -0.1, True, False])
    | st.just(datetime.date(2024, 1, 1))
)
VALUES = (
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["teacher", "student", "name", "a.b"]), SCALARS, max_size=3)
)
OPTIONS = ["root", "sizes", "dropout", "depth", "temperature", "beta", "low", "loops", "lr", "momentum", "inner", "nope"]


def table(*models):
    keys = [k for m in models for k in m.model_fields] + OPTIONS
    return st.dictionaries(st.sampled_from(keys), VALUES, max_size=4)


METHOD = st.fixed_dictionaries({"name": st.sampled_from(["kd", "dk", "wrap", "feat", "none", "alone"])}).flatmap(
    lambda start: table(MethodTable).map(lambda more: {**start, **more})
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "seed": VALUES,
        "dataset": table(DatasetTable),
        "student": table(StudentTable),
        "teacher": table(TeacherTable) | SCALARS,
        "method": METHOD | st.lists(METHOD, max_size=3) | SCALARS,
        "optimizer": table(),
        "schedule": table(ScheduleTable),
        "train": table(TrainTable),
        "evaluate": table(EvaluateTable),
        "nope": VALUES,
    },
)
BASE = {
    "dataset": {"name": "toy", "root": "images"},
    "student": {"name": "small"},
    "teacher": {"name": "big", "checkpoint": "teacher.pth"},
    "method": {"name": "kd"},
    "train": {"epochs": 2},
}


def readable(error):
    assert error.problems
    for problem in error.problems:
        assert problem.message
        assert str(problem).replace("\n", "").isprintable()
        assert "pydantic" not in str(problem)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=CHANGES,
    whole=st.booleans(),
    override=st.none() | st.tuples(st.sampled_from(["method.weight", "teacher.run", "a", "train.x.y"]), VALUES),
)
def test_profile_or_profile_error(folder, registry, changes, whole, override):
    data = {**BASE}
    for name, value in changes.items():
        data[name] = (
            {**BASE[name], **value} if name in BASE and isinstance(value, dict) and isinstance(BASE[name], dict) and not whole else value
        )
    path = folder / "profile.toml"
    path.write_text(write_toml(data), encoding="utf-8")
    try:
        profile = load(path, registry=registry, overrides=dict([override]) if override else ())
    except ProfileError as error:
        readable(error)
        return
    (folder / "resolved.toml").write_text(write_toml(profile.resolved), encoding="utf-8")
    again = from_resolved(folder / "resolved.toml", registry)
    assert again.digest == profile.digest


def test_the_base_is_right(folder, registry):
    """Otherwise the property above would hold for errors alone."""
    path = folder / "profile.toml"
    path.write_text(write_toml(BASE), encoding="utf-8")
    assert load(path, registry=registry).task_weight == pytest.approx(0.1)
