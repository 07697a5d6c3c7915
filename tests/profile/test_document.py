"""What the command line changes: a new document each time, with the place of every key."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from distillctl import ProfileError
from distillctl.profile.document import Document, edited, parse_edit, with_method, with_teacher, with_trackers
from distillctl.profile.schema import ScheduleTable

TWO = '[[method]]\nname = "dk"\n\n[[method]]\nname = "feat"\nweight = 3'


def test_a_document_does_not_change(folder, text):
    """Whatever is made of it: readers may keep what they took out of it."""
    (folder / "profile.toml").write_text(text(method=TWO))
    document = Document.read(Path("profile.toml"))
    data, places = copy.deepcopy(document.data), dict(document.places)
    changed = [edited(document, parse_edit(edit)) for edit in ("train.epochs=7", "method.1.weight=2", "evaluate.every=3", "seed=2")]
    changed += [with_method(document, "dk"), with_teacher(document, "runs/done"), document.without(("teacher", "name"))]
    assert (document.data, document.places) == (data, places)
    assert all((other.data, other.places) != (data, places) for other in changed)
    assert (changed[0].get(("train", "epochs")), changed[1].get(("method", 1, "weight"))) == (7, 2)
    assert (changed[2].get(("evaluate", "every")), changed[3].get(("seed",))) == (3, 2)


def test_places_of_what_the_command_line_states(folder, text):
    (folder / "profile.toml").write_text(text())
    document = edited(Document.read(Path("profile.toml")), parse_edit("evaluate.every=3"))
    assert document.where(("evaluate",)) == document.where(("evaluate", "every")) == "--set evaluate.every=3"
    assert document.where(("train", "epochs")) == "profile.toml:18, [train]"
    replaced = edited(document, parse_edit("train={epochs = 3}"))
    assert replaced.where(("train", "epochs")) == "--set train={epochs = 3}"
    assert with_teacher(document, "runs/done").data["teacher"] == {"run": str(folder / "runs" / "done")}


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("train.precision=bf16", "train", "precision", "bf16"),
        ('train.precision="bf16"', "train", "precision", "bf16"),
        ("dataset.root=a=b c", "dataset", "root", "a=b c"),
        ("dataset.root=2024-01-01", "dataset", "root", "2024-01-01"),
        ("dataset.sizes=[8, 16]", "dataset", "sizes", [8, 16]),
        ("train . epochs = 3", "train", "epochs", 3),
        ("evaluate.every=2", "evaluate", "every", 2),
        ('"train"."epochs"=4', "train", "epochs", 4),
        ("method.0.weight=2", "method", "weight", 2.0),
        ("method.kd.weight=2", "method", "weight", 2.0),
        ('optimizer={name="adamw", beta1=0.5}', "optimizer", "beta1", 0.5),
    ],
)
def test_forms(read, override, table, key, value):
    profile = read(overrides=[override])
    assert profile.resolved[table][key] == value
    assert profile.origins[f"{table}.{key}"] == "command line"


def test_later_ones_win(read):
    assert read(overrides=["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_mapping(read):
    profile = read(overrides={"train.epochs": 3, "dataset.sizes": [4]})
    assert (profile.train.epochs, profile.dataset.options.sizes) == (3, [4])
    assert read(overrides={"evaluate": None, "evaluate.every": 3}).evaluate.every == 3


@pytest.mark.parametrize("key", ["method.1.weight", "method.feat.weight"])
def test_several_methods(read, text, key):
    profile = read(text(method=TWO), overrides=[f"{key}=5", "method.dk.beta=1"])
    assert [m.table.weight for m in profile.methods] == [0.5, 5.0]
    assert profile.methods[0].options.beta == 1.0
    assert profile.origins["method.1.weight"] == "command line"


def test_inner(read, text):
    profile = read(text(method='name = "wrap"'), overrides=["method.inner.name=dk", "method.inner.beta=3"])
    assert profile.methods[0].inner.options.beta == 3.0


def test_what_the_command_line_makes_ineffective_is_dropped(read, text):
    content = text(train='epochs = 2\n[schedule]\nname = "step"\nmilestones = [0.5]\ngamma = 0.5')
    profile = read(content, overrides=["schedule.name=cosine"])
    assert profile.schedule == ScheduleTable(name="cosine")
    assert profile.origins["schedule.gamma"] == "default"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("train.epochs", "form `KEY=VALUE`"),
        ("=3", "form `KEY=VALUE`"),
        ("train..epochs=3", "form `KEY=VALUE`"),
        ("train.epochs.=3", "form `KEY=VALUE`"),
        ("tr ain=3", "form `KEY=VALUE`"),
        ("a.b.c.d.e.f.g.h.i=3", "form `KEY=VALUE`"),
        ("train.epochs=ten", 'must be an integer, not the string "ten"'),
        ("train.epochs=[1, 2", "must be an integer, not the string"),
        ("train.epochs=1\nseed=3", "must be an integer, not the string"),
        ("train.epochs=" + "[" * 10_000, "must be an integer, not the string"),
        ("seed.x=3", "`seed` is not a table"),
        ("method=kd", "`method` must be a table"),
        ("method.inner.name=kd", "has no effect"),
        ("optimizer=adamw", "`optimizer` must be a table"),
        ("method.name=nothing", "no method is called `nothing`"),
        ("schedule.gamma=0.5", "has no effect"),
        ("nowhere.x=1", "unknown table `nowhere`"),
    ],
)
def test_overrides(read, overrides, message):
    with pytest.raises(ProfileError) as caught:
        read(overrides=[overrides])
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.where.startswith("--set " + overrides.split("\n")[0][:50])
    assert problem.where.isprintable()
    assert len(problem.where) < 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.2.weight=1", "there is no [[method]] table number 2, only 0 to 1"),
        ("method.weight=1", "does not say which it means"),
        ("method.dk.weight=1", "several [[method]] tables are called `dk`"),
        ("method.0=dk", "`method.0` is a whole table, and `--set` sets a key of it"),
        ("method.dk=1", "`method.dk` is a whole table, and `--set` sets a key of it"),
    ],
)
def test_overrides_of_several_methods(read, text, override, message):
    with pytest.raises(ProfileError) as caught:
        read(text(method='[[method]]\nname = "dk"\n[[method]]\nname = "dk"'), overrides=[override])
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.where == f"--set {override}"


@pytest.mark.parametrize(
    ("changes", "override", "message"),
    [
        ({"train": "[[train]]\nepochs = 3"}, "train.epochs=2", "`train` is not a table"),
        ({"dataset": '[[dataset]]\nname = "toy"'}, "dataset.0.name=toy", "`dataset` is not a table"),
        ({"top": "train = 3", "train": None}, "train.epochs=2", "`train` is not a table"),
        ({"top": 'tracker = "csv"'}, "tracker.name=csv", "`tracker` is not a table"),
        ({"train": 'epochs = 2\n[[student]]\nname = "small"', "student": None}, "student.name=csv", "`student` is not a table"),
        ({"train": 'epochs = 2\n[[student]]\nname = "small"', "student": None}, "student.0.name=csv", "`student` is not a table"),
        ({"top": 'teacher = ["big"]', "teacher": None}, "teacher.overrides.seed=2", "`teacher` is not a table"),
        ({"method": 'name = "wrap"\ninner = [{name = "dk"}]'}, "method.inner.beta=2", "`method.inner` is not a table"),
        ({"method": '[[method]]\nname = "wrap"\ninner = [1]'}, "method.wrap.inner.0.beta=2", "`method.0.inner` is not a table"),
        ({"top": 'method = ["kd", {name = "dk"}]', "method": None}, "method.dk.inner.x.y=2", "must be a table"),
        ({"top": "method = []", "method": None}, "method.name=kd", "`method` is not a table"),
    ],
)
def test_overrides_through_what_is_not_a_table(read, text, changes, override, message):
    """An array of tables is not one either: each is told, with all that is wrong besides."""
    with pytest.raises(ProfileError) as caught:
        read(text(**changes), overrides=[override])
    assert any(message in p.message for p in caught.value.problems)
    assert all(p.where == f"--set {override}" for p in caught.value.problems if "is not a table" in p.message)


@pytest.mark.parametrize("table", ['name = "dk"', "[[method]]"])
def test_a_whole_method_is_no_key_of_the_only_table_either(read, text, table):
    content = text(method='name = "dk"') if table != "[[method]]" else text(method='[[method]]\nname = "dk"')
    for override in ("method.0=kd", "method.dk={beta=2}"):
        with pytest.raises(ProfileError, match=r"is a whole table") as caught:
            read(content, overrides=[override])
        assert "`--method NAME` replaces all methods" in caught.value.problems[0].hint
    assert read(content, overrides=["method.0.beta=3.0"]).methods[0].options.beta == 3.0


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.lr=0.1", "it is `optimizer.lr`; allowed are"),
        ("optimizer.learning_rate=0.1", "it is `optimizer.lr`; `distillctl show"),
        ("student.epochs=2", "it is `train.epochs`; `distillctl show"),
        ("train.epoch=2", "did you mean `epochs`? allowed are"),
    ],
)
def test_a_key_of_another_table_is_named(read, override, hint):
    with pytest.raises(ProfileError) as caught:
        read(overrides=[override])
    assert caught.value.problems[0].hint.startswith(hint)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("", [{"name": "csv"}, {"name": "b"}]),
        ('[tracker]\nname = "csv"\nseparator = ";"', [{"name": "csv", "separator": ";"}, {"name": "b"}]),
        ('[tracker]\nname = "a"', [{"name": "a"}, {"name": "csv"}, {"name": "b"}]),
        ('[[tracker]]\nname = "b"\n[[tracker]]\nname = "csv"', [{"name": "b"}, {"name": "csv"}]),
    ],
)
def test_trackers_of_the_command_line_stand_beside_those_of_the_profile(folder, text, stated, expected):
    (folder / "profile.toml").write_text(f"{text()}\n{stated}\n")
    document = with_trackers(Document.read(Path("profile.toml")), ["csv", "b", "csv"])
    tables = document.data["tracker"]
    assert ([tables] if isinstance(tables, dict) else tables) == expected
    where = [document.where(("tracker", number, "name")) for number, table in enumerate(expected)]
    for table, place in zip(expected, where, strict=True):
        assert place == (f"--track {table['name']}" if f'"{table["name"]}"' not in stated else place)
        assert place.startswith(("--track", "profile.toml:"))


def test_a_tracker_of_the_command_line_has_keys_and_changes_nothing_of_the_run(read):
    plain, tracked = read(), read(track=["csv"], overrides=["tracker.csv.separator=;"])
    assert tracked.digest == plain.digest
    assert tracked.resolved["tracker"] == [{"name": "csv", "separator": ";"}]
    assert [choice.options.separator for choice in tracked.trackers] == [";"]
    with pytest.raises(ProfileError, match=r"no tracker is called `cvs`[\s\S]*--track cvs"):
        read(track=["cvs"])
    with pytest.raises(ProfileError, match=r"`tracker\.csv` is a whole table"):
        read(track=["csv"], overrides=["tracker.csv=;"])
