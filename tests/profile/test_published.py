"""`[published]`: what is read, what is refused, which figure belongs to which options, and that a run is the same with it."""

from __future__ import annotations

import dataclasses
import math

import pytest

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.published import Asked
from distillctl.profile.published_table import asked
from distillctl.profile.reading import load

BASE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
[method]
name = "kd"
[train]
epochs = 2
"""
TEACHER = BASE.replace('[teacher]\nprofile = "teacher.toml"\n', "").replace('"kd"', '"none"')
TABLE = """
[published]
top1 = 97.5
source = "a paper"
teacher = 99
band = 0.25
[published.methods]
none = 96
dkd = { top1 = 98.5, source = "another", epoch = "best", sd = 0.3, of = 5 }
[published.options]
"--method crd --set train.batch_size=256" = 98
"--teacher other.toml --set optimizer.lr=1e-1" = { mpa = 90.5 }
"""


@pytest.fixture(scope="module")
def registry():
    return Registry.load({})


@pytest.fixture
def read(tmp_path, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "other"):
        (tmp_path / f"{name}.toml").write_text(TEACHER)

    def read(table=TABLE, **arguments):
        (tmp_path / "p.toml").write_text(BASE + table)
        return load("p.toml", registry=registry, **arguments)

    return read


def test_a_run_is_the_same_with_it(read):
    with_table, without = read(), read("")
    assert with_table.digest == without.digest
    assert with_table.resolved == without.resolved
    assert without.published.of(Asked()) == (None, False)


@pytest.mark.parametrize(
    ("method", "teacher", "sets", "expected"),
    [
        (None, None, [], ("top1", 97.5, True)),
        ("none", None, [], ("top1", 96, True)),
        ("dkd", None, [], ("top1", 98.5, True)),
        ("crd", None, ["train.batch_size = 256"], ("top1", 98, True)),
        (None, "./other.toml", ["optimizer.lr=0.1"], ("mpa", 90.5, True)),
        (None, None, ["train.epochs=2"], ("top1", 97.5, False)),
        ("dkd", None, ["train.epochs=2"], ("top1", 98.5, False)),
        (None, "other.toml", [], ("top1", 97.5, False)),
        (None, None, ["dataset.root=elsewhere", "train.workers=0", "tracker.csv.separator=;", "dataset.cache=ram"], ("top1", 97.5, True)),
        (None, None, ["teacher.overrides.dataset.root=elsewhere"], ("top1", 97.5, True)),
        (None, None, ["teacher.overrides.train.epochs=1"], ("top1", 97.5, False)),
    ],
)
def test_which_figure_belongs_to_which_options(read, method, teacher, sets, expected):
    figure, exact = read().published.of(asked(method, teacher, sets))
    assert (figure.name, figure.value, exact) == expected


def test_options_that_have_no_figure(read):
    assert read().published.of(asked("crd", None, [])) == (None, False)


def test_rows_inherit_what_they_do_not_say(read):
    published = read().published
    assert published.teacher == 99
    tables = [published.of(Asked(method))[0].table for method in (None, "none", "dkd")]
    assert [(table.source, table.epoch, table.split, table.band) for table in tables] == [
        ("a paper", "last", "test", 0.25),
        ("a paper", "last", "test", 0.25),
        ("another", "best", "test", 0.25),
    ]
    assert [(table.sd, table.of) for table in tables] == [(None, 1), (None, 1), (0.3, 5)]


def test_bands(read):
    def band(table, seeds):
        figure, _ = read(f'[published]\ntop1 = 97.5\nsource = "a"\n{table}').published.of(Asked())
        return figure.band(seeds)

    assert band("", 1) == band("", 5) == 0.5
    assert band("band = 0.2\nsd = 3.0", 3) == 0.2
    assert band("sd = 0.3\nof = 4", 3) == pytest.approx(2 * 0.3 * math.sqrt(1 / 3 + 1 / 4))
    assert band("sd = 0.3", 1) == pytest.approx(2 * 0.3 * math.sqrt(2))


TWICE = """[published]
top1 = 73.33
source = "a"
[published.options]
"--method a" = 3
'--method "a"' = 3
"""


@pytest.mark.parametrize(
    ("table", "message", "line"),
    [
        ('[published]\ntop_1 = 73.33\nsource = "a"', "`top_1` is neither a figure of this task nor a key of [published]", 13),
        ('[published]\ntop1 = "73.33"\nsource = "a"', 'the published `top1` must be a number, not "73.33"', 13),
        ('[published]\ntop1 = true\nsource = "a"', "the published `top1` must be a number, not true", 13),
        ('[published]\ntop1 = nan\nsource = "a"', "the published `top1` must be a number, not nan", 13),
        ("[published]\ntop1 = 73.33", "`published.source` is missing: where were the figures published?", 12),
        ('[published]\nsource = "a"', "[published] states no figure", 12),
        ('[published]\ntop1 = 73.33\nmpa = 72\nsource = "a"', "[published] states one figure, not 2: `top1`, `mpa`", 14),
        ('[published]\ntop1 = 73.33\nsource = "a"\nband = 0.0', "`published.band` must be above 0, not 0.0", 15),
        ('[published]\ntop1 = 73.33\nsource = "a"\nepoch = "third"', "`published.epoch` must be", 15),
        ('[published]\ntop1 = 73.33\nsource = "a"\n[published.methods]\nkd = "high"', "the published `top1` must be a number", 16),
        ('[published]\ntop1 = 73.33\nsource = "a"\n[published.methods]\nkd = {source = "b"}', "`kd` states no figure", 16),
        ('[published]\ntop1 = 73.33\nsource = "a"\n[published.options]\n"--fresh" = 3', "`--fresh` is not a list of `--method NAME`", 16),
        ('[published]\ntop1 = 73.33\nsource = "a"\n[published.options]\n"--set x" = 3', "`--set x` is not a list of `--method NAME`", 16),
        (TWICE, '`--method "a"` is stated twice', 17),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(read, table, message, line):
    with pytest.raises(ProfileError) as caught:
        read(table)
    problem = next(problem for problem in caught.value.problems if problem.message.startswith(message))
    assert problem.where.partition(",")[0] == f"p.toml:{line}"


def test_a_figure_is_data(read):
    figure, _ = read().published.of(Asked())
    with pytest.raises(dataclasses.FrozenInstanceError):
        figure.value = 3
