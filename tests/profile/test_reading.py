"""Profiles that are right: what comes out, where each value comes from, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import EvaluateTable, ScheduleTable
from distillctl.profile.writing import write_toml

TWO = '[[method]]\nname = "dk"\n\n[[method]]\nname = "feat"\nweight = 3'


def test_smallest_profile(read, text):
    profile = read(text(top="", teacher=None, method=None))
    assert profile.seed == 0
    assert profile.name == "profile"
    assert profile.teacher is None
    assert [m.spec.name for m in profile.methods] == ["none"]
    assert profile.task_weight == 1.0
    assert profile.optimizer.spec.name == "sgd"
    assert profile.schedule == ScheduleTable()
    assert profile.evaluate == EvaluateTable()
    assert profile.resolved["method"]["name"] == "none"
    assert "teacher" not in profile.resolved


def test_values_and_origins(read, text):
    profile = read(text(train="epochs = 2\nprecision = 'bf16'"), overrides=["train.batch_size=8", "optimizer.lr=0.5"])
    assert profile.text == text(train="epochs = 2\nprecision = 'bf16'").encode()
    assert (profile.train.epochs, profile.train.precision, profile.train.batch_size) == (2, "bf16", 8)
    assert profile.optimizer.options.lr == 0.5
    assert profile.methods[0].options.temperature == 4.0
    assert (profile.methods[0].table.weight, profile.task_weight) == (0.9, 0.1)
    origins = profile.origins
    assert origins["seed"] == "profile:1"
    assert origins["train.epochs"] == "profile:18"
    assert origins["train.batch_size"] == "command line"
    assert origins["optimizer.lr"] == "command line"
    assert origins["optimizer.momentum"] == "default"
    assert origins["method.weight"] == "default"
    assert set(origins) == {"seed"} | {f"{t}.{k}" for t, table in profile.resolved.items() if t != "seed" for k in table}


def test_resolved_holds_absolute_paths_and_nothing_unset(read, folder):
    resolved = read().resolved
    assert resolved["teacher"]["checkpoint"] == str(folder / "teacher.pth")
    assert resolved["dataset"]["root"] == "images"
    assert "depth" not in resolved["teacher"]
    assert not {"run", "profile", "weights", "overrides"} & set(resolved["teacher"])
    assert not {"weights", "checkpoint"} & set(resolved["student"])


@pytest.mark.parametrize(
    ("changes", "overrides"),
    [
        ({}, []),
        ({"teacher": None, "method": None}, []),
        ({"method": TWO}, []),
        ({"method": 'name = "wrap"\n[method.inner]\nname = "dk"\nbeta = 3'}, []),
        ({"method": 'name = "wrap"\n[method.inner]\nname = "around"\n[method.inner.inner]\nname = "dk"\nbeta = 3'}, []),
        ({"method": 'name = "kd"\ntemperature = {teacher = 4, student = 2}'}, ["schedule.name=step", "schedule.milestones=[0.5, 0.75]"]),
        ({"teacher": 'profile = "teacher.toml"\noverrides = {"train.epochs" = 1}'}, ["seed=4294967295"]),
        ({"teacher": 'run = "runs/done"'}, ["train.workers=2", "dataset.root=späte Bilder/é"]),
        ({"teacher": 'name = "big"\nweights = "V2"\ndropout = 0.5'}, ["student.name=two/vgg13"]),
    ],
)
def test_resolved_reads_back_to_the_same_run(read, text, folder, registry, changes, overrides):
    profile = read(text(**changes), overrides=overrides)
    run = folder / "elsewhere"
    run.mkdir()
    (run / "resolved.toml").write_text(write_toml(profile.resolved), encoding="utf-8")
    (folder / "teacher.pth").unlink()
    (folder / "teacher.toml").unlink()
    for again in (from_resolved(run, registry), from_resolved(run / "resolved.toml", registry)):
        assert again.digest == profile.digest
        assert again.resolved == profile.resolved
        assert again.methods == profile.methods
        assert again.teacher == profile.teacher
        assert again.task_weight == profile.task_weight


def test_digest_depends_on_values_alone(read, text):
    first = read(text())
    assert read(text(train="# a comment\nbatch_size = 64\nepochs = 2")).digest == first.digest
    assert read(text(method="name = 'kd'\nweight = 0.9")).digest == first.digest
    assert read(text(), seed=2).digest != first.digest
    assert read(text(train="epochs = 3")).digest != first.digest


def test_windows_line_ends(read, text):
    assert read(text().replace("\n", "\r\n")).digest == read(text()).digest


def test_seed_from_the_command_line(read):
    profile = read(seed=7)
    assert (profile.seed, profile.resolved["seed"], profile.origins["seed"]) == (7, 7, "command line")


class TestOverrides:
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
    def test_forms(self, read, override, table, key, value):
        profile = read(overrides=[override])
        assert profile.resolved[table][key] == value
        assert profile.origins[f"{table}.{key}"] == "command line"

    def test_later_ones_win(self, read):
        assert read(overrides=["train.epochs=3", "train.epochs=4"]).train.epochs == 4

    def test_mapping(self, read):
        profile = read(overrides={"train.epochs": 3, "dataset.sizes": [4]})
        assert (profile.train.epochs, profile.dataset.options.sizes) == (3, [4])

    @pytest.mark.parametrize("key", ["method.1.weight", "method.feat.weight"])
    def test_several_methods(self, read, text, key):
        profile = read(text(method=TWO), overrides=[f"{key}=5", "method.dk.beta=1"])
        assert [m.table.weight for m in profile.methods] == [0.5, 5.0]
        assert profile.methods[0].options.beta == 1.0
        assert profile.origins["method.1.weight"] == "command line"

    def test_inner(self, read, text):
        profile = read(text(method='name = "wrap"'), overrides=["method.inner.name=dk", "method.inner.beta=3"])
        assert profile.methods[0].inner.options.beta == 3.0

    def test_what_the_command_line_makes_ineffective_is_dropped(self, read, text):
        content = text(train='epochs = 2\n[schedule]\nname = "step"\nmilestones = [0.5]\ngamma = 0.5')
        profile = read(content, overrides=["schedule.name=cosine"])
        assert profile.schedule == ScheduleTable(name="cosine")
        assert profile.origins["schedule.gamma"] == "default"


class TestMethods:
    def test_method_replaces_tables_with_its_own_defaults(self, read, text):
        profile = read(text(method=TWO), method="wrap", overrides=["method.loops=5"])
        assert [m.spec.name for m in profile.methods] == ["wrap"]
        assert (profile.methods[0].table.weight, profile.task_weight) == (0.9, 0.1)
        assert profile.methods[0].options.loops == 5
        assert profile.origins["method.name"] == "command line"

    def test_control_drops_the_teacher(self, read):
        profile = read(method="none")
        assert profile.teacher is None
        assert "teacher" not in profile.resolved
        assert read(overrides=["method.name=none"]).digest == profile.digest

    def test_presets(self, read, text):
        profile = read(text(method='name = "dk"'))
        assert profile.methods[0].options.beta == 2.0
        assert (profile.methods[0].table.weight, profile.methods[0].table.warmup_epochs) == (0.5, 20.0)
        assert profile.origins["method.beta"] == "table 2"
        assert profile.origins["method.warmup_epochs"] == "default"

    def test_preset_of_the_data_alone(self, read, text):
        profile = read(text(method='name = "dk"', student='name = "one/vgg13"'))
        assert (profile.methods[0].options.beta, profile.origins["method.beta"]) == (6.0, "table 1")

    def test_stated_keys_win_over_presets(self, read, text):
        profile = read(text(method='name = "dk"\nbeta = 7'))
        assert (profile.methods[0].options.beta, profile.origins["method.beta"]) == (7.0, "profile:16")

    @pytest.mark.parametrize("teacher", ['run = "runs/done"', 'profile = "teacher.toml"', 'name = "big"\nweights = "V1"'])
    def test_presets_know_the_teacher_of_every_way(self, read, text, teacher):
        assert read(text(teacher=teacher), method="dk").methods[0].options.beta == 2.0

    def test_task_weight_of_several(self, read, text):
        assert read(text(method=TWO)).task_weight == 1.0
        mixed = '[[method]]\nname = "kd"\n\n[[method]]\nname = "feat"\ntask_weight = 0.3'
        profile = read(text(method=mixed))
        assert profile.task_weight == 0.3
        assert [m.table.task_weight for m in profile.methods] == [0.3, 0.3]
        assert profile.origins["method.0.task_weight"] == "profile:19"

    def test_wrapper_has_its_default_inside(self, read, text):
        (method,) = read(text(method='name = "wrap"')).methods
        assert method.inner.spec.name == "kd"
        assert method.inner.table.weight == 1.0

    def test_inner_takes_presets_but_no_weights(self, read, text):
        profile = read(text(method='name = "wrap"\n[method.inner]\nname = "dk"'))
        inner = profile.methods[0].inner
        assert (inner.options.beta, inner.table.weight) == (2.0, 1.0)
        assert profile.resolved["method"]["inner"] == {"name": "dk", "beta": 2.0, "low": 0, "high": 1}
        assert profile.origins["method.inner.beta"] == "table 2"

    def test_presets_may_depend_on_options_and_on_what_is_wrapped(self, read, text):
        def weight(method):
            profile = read(text(method=method))
            return profile.methods[0].table.weight, profile.origins["method.weight"]

        assert weight('name = "dk"\nhigh = 5') == (7.0, "table 3")
        assert weight('name = "dk"\nhigh = 4') == (0.5, "table 2")
        assert weight('name = "wrap"\n[method.inner]\nname = "dk"') == (4.0, "table 4")
        assert weight('name = "wrap"\n[method.inner]\nname = "kd"') == (0.9, "default")

    def test_wrappers_wrap_wrappers(self, read, text):
        profile = read(text(method='name = "around"\n[method.inner.inner]\nname = "dk"\nbeta = 3'))
        (outer,) = profile.methods
        names = outer.spec.name, outer.inner.spec.name, outer.inner.inner.spec.name
        assert names == ("around", "wrap", "dk")
        assert outer.inner.inner.options.beta == 3.0
        assert profile.resolved["method"]["inner"] == {
            "name": "wrap", "loops": 10, "inner": {"name": "dk", "beta": 3.0, "low": 0, "high": 1},
        }  # fmt: skip
        turned = read(text(method='name = "wrap"\n[method.inner]\nname = "around"\n[method.inner.inner]\nname = "kd"'))
        assert turned.methods[0].inner.inner.spec.name == "kd"
        assert turned.resolved["method"]["inner"] == {"name": "around", "inner": {"name": "kd"}}

    def test_method_that_needs_no_teacher(self, read, text):
        assert read(text(teacher=None, method='name = "alone"')).teacher is None


class TestTeacher:
    def test_ways_on_the_command_line(self, read, folder):
        assert read(teacher="runs/done").teacher.table.run == folder / "runs" / "done"
        by_profile = read(teacher="teacher.toml").teacher
        assert (by_profile.table.profile, by_profile.spec, by_profile.table.name) == (folder / "teacher.toml", None, "")
        (folder / "other.pt").write_bytes(b"")
        by_file = read(teacher=Path("other.pt"), overrides=["teacher.dropout=0.5"]).teacher
        assert (by_file.table.checkpoint, by_file.spec.name, by_file.options.dropout) == (folder / "other.pt", "big", 0.5)
        assert read(teacher="runs/done").origins["teacher.run"] == "command line"

    def test_profile_is_looked_up_beside_this_one(self, read, text, folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "teacher.toml").write_text(text(student='name = "big"', teacher=None, method=None))
        profile = read(text(teacher='profile = "teacher.toml"'), name="deep/profile.toml")
        assert profile.teacher.table.profile == folder / "deep" / "teacher.toml"
        profile = read(name="deep/profile.toml", overrides=["teacher.profile=teacher.toml"])
        assert profile.teacher.table.profile == folder / "teacher.toml"

    def test_overrides_reach_the_teachers_profile(self, read, text):
        nested = read(text(teacher='profile = "teacher.toml"\noverrides = {train = {epochs = 1}}'))
        assert nested.teacher.table.overrides == {"train": {"epochs": 1}}
        by_command_line = read(text(teacher='profile = "teacher.toml"'), overrides=["teacher.overrides.train.epochs=1"])
        assert by_command_line.teacher.table.overrides == {"train.epochs": 1}

    def test_untrained_stays_with_another_way(self, read, text):
        content = text(teacher='name = "big"\ncheckpoint = "teacher.pth"\nallow_untrained = true')
        assert read(content, teacher="runs/done").teacher.table.allow_untrained
