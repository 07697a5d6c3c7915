"""`[teacher]`: the ways on the command line, and the profile that trains one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved, load, load_teacher_profile
from distillctl.profile.writing import write_toml


def test_ways_on_the_command_line(read, folder):
    assert read(teacher="runs/done").teacher.table.run == folder / "runs" / "done"
    by_profile = read(teacher="teacher.toml").teacher
    assert (by_profile.table.profile, by_profile.spec, by_profile.table.name) == (folder / "teacher.toml", None, "")
    (folder / "other.pt").write_bytes(b"")
    by_file = read(teacher=Path("other.pt"), overrides=["teacher.dropout=0.5"]).teacher
    assert (by_file.table.checkpoint, by_file.spec.name, by_file.options.dropout) == (folder / "other.pt", "big", 0.5)
    assert read(teacher="runs/done").origins["teacher.run"] == "command line"


def test_profile_is_looked_up_beside_this_one(read, text, folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "teacher.toml").write_text(text(student='name = "big"', teacher=None, method=None))
    profile = read(text(teacher='profile = "teacher.toml"'), name="deep/profile.toml")
    assert profile.teacher.table.profile == folder / "deep" / "teacher.toml"
    profile = read(name="deep/profile.toml", overrides=["teacher.profile=teacher.toml"])
    assert profile.teacher.table.profile == folder / "teacher.toml"


def test_overrides_reach_the_teachers_profile(read, text):
    nested = read(text(teacher='profile = "teacher.toml"\noverrides = {train = {epochs = 1}}'))
    assert nested.teacher.table.overrides == {"train": {"epochs": 1}}
    by_command_line = read(text(teacher='profile = "teacher.toml"'), overrides=["teacher.overrides.train.epochs=1"])
    assert by_command_line.teacher.table.overrides == {"train.epochs": 1}


def test_untrained_stays_with_another_way(read, text):
    content = text(teacher='name = "big"\ncheckpoint = "teacher.pth"\nallow_untrained = true')
    assert read(content, teacher="runs/done").teacher.table.allow_untrained


def test_a_file_in_place_of_a_profile_is_for_the_model_of_that_profile(read, text, folder):
    (folder / "other.pt").write_bytes(b"")
    (folder / "deep").mkdir()
    (folder / "deep" / "first.toml").write_text(text(student='name = "big"\ndropout = 0.25\nweights = "V1"', teacher=None, method=None))
    profile = read(text(teacher='profile = "first.toml"\noverrides = {seed = 1}'), name="deep/x.toml", teacher="other.pt")
    assert (profile.teacher.table.checkpoint, profile.teacher.spec.name) == (folder / "other.pt", "big")
    assert (profile.teacher.options.dropout, profile.teacher.table.weights) == (0.25, "")
    with pytest.raises(ProfileError, match=r"`teacher\.name` is missing"):
        read(text(teacher='profile = "nowhere.toml"'), teacher="other.pt")


def test_the_place_in_a_file_belongs_to_that_file(read, text, folder):
    stated = text(teacher='name = "big"\ncheckpoint = "teacher.pth"\nkey = "model.teacher"')
    assert read(stated).teacher.table.key == "model.teacher"
    (folder / "other.pt").write_bytes(b"")
    assert read(stated, teacher="other.pt").teacher.table.key is None
    for teacher in ('run = "runs/done"', 'profile = "teacher.toml"', 'name = "big"\nweights = "V1"'):
        with pytest.raises(ProfileError, match=r"`teacher\.key` has no effect"):
            read(text(teacher=f'{teacher}\nkey = "x"'))
    with pytest.raises(ProfileError, match=r"`student\.key` has no effect without `checkpoint`"):
        read(text(student='name = "big"\nkey = "x"'))
    with pytest.raises(ProfileError, match=r"`teacher\.key`"):
        read(text(teacher='name = "big"\ncheckpoint = "teacher.pth"\nkey = ""'))


FOLDER = '[dataset]\nname = "imagefolder"\nroot = "photos"\n[student]\nname = "torchvision/resnet18"\n'


def test_where_the_data_are_is_said_once_for_student_and_teacher(folder):
    registry = Registry.load()
    (folder / "first.toml").write_text(FOLDER + "[train]\nepochs = 1\n")
    (folder / "second.toml").write_text(FOLDER + '[teacher]\nprofile = "first.toml"\n[method]\nname = "kd"\n[train]\nepochs = 1\n')

    def teachers(*overrides):
        profile = load(folder / "second.toml", registry=registry, overrides=overrides)
        return load_teacher_profile(profile, registry).dataset

    assert str(teachers().options.root) == "photos"
    found = teachers("dataset.root=elsewhere", "dataset.limit=50", "dataset.image_size=64")
    assert (str(found.options.root), found.table.limit, found.options.image_size) == ("elsewhere", 0, 224)
    assert str(teachers("dataset.root=a", "teacher.overrides.dataset.root=b").options.root) == "b"
    (folder / "first.toml").write_text(FOLDER.replace('"imagefolder"\nroot = "photos"', '"digits"') + "[train]\nepochs = 1\n")
    assert teachers("dataset.root=elsewhere").spec.name == "digits"


def test_teachers_in_a_circle(read, text, folder):
    (folder / "a.toml").write_text(text(teacher='profile = "b.toml"'))
    (folder / "b.toml").write_text(text(teacher='profile = "a.toml"'))
    with pytest.raises(ProfileError, match="leads back"):
        read(text(teacher='profile = "a.toml"'))


@pytest.mark.parametrize(
    ("stated", "mean", "std", "source"),
    [
        ("", [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], "V2"),
        ("mean = [0.1, 0.2, 0.3]", [0.1, 0.2, 0.3], [0.25, 0.25, 0.25], "profile:"),
    ],
)
def test_pretrained_weights_bring_their_mean_and_deviation(read, text, stated, mean, std, source):
    profile = read(text(teacher=f'name = "seeing"\nweights = "V2"\n{stated}'))
    table = profile.teacher.table
    assert (table.mean, table.std, table.image_size) == (mean, std, None)
    assert profile.origins["teacher.mean"].startswith(source)
    assert profile.origins["teacher.std"] == "V2"
    assert (profile.resolved["teacher"]["mean"], "image_size" in profile.resolved["teacher"]) == (mean, False)
    assert read(text(teacher='name = "seeing"\nweights = "V1"')).teacher.table.mean is None, "nothing is known of these weights"


def test_a_file_of_weights_brings_nothing(read, text, folder):
    profile = read(text(teacher='name = "seeing"\ncheckpoint = "teacher.pth"'))
    assert (profile.teacher.table.mean, profile.teacher.table.image_size) == (None, None)


def test_a_run_from_before_keeps_what_it_had(folder, registry, read, text):
    profile = read(text(teacher='name = "seeing"\nweights = "V2"'))
    resolved = dict(profile.resolved)
    resolved["teacher"] = {k: v for k, v in profile.resolved["teacher"].items() if k not in ("mean", "std")}
    (folder / "resolved.toml").write_text(write_toml(resolved))
    again = from_resolved(folder / "resolved.toml", registry)
    assert again.teacher.table.mean is None
    assert again.resolved == resolved


@pytest.mark.parametrize(
    ("weights", "stated", "size", "origin"),
    [
        ('weights = "V1"', "", 64, "V1"),
        ('weights = "V1"', "image_size = 48", 48, "profile:"),
        ('checkpoint = "teacher.pth"', "", 32, "default"),
        ('checkpoint = "teacher.pth"', "image_size = 96", 96, "profile:"),
    ],
)
def test_a_model_of_one_size_is_built_for_it_and_sees_it(read, text, weights, stated, size, origin):
    profile = read(text(teacher=f'name = "fixed"\n{weights}\n{stated}'))
    assert (profile.teacher.options.image_size, profile.teacher.table.image_size) == (size, size)
    assert profile.resolved["teacher"]["image_size"] == size
    assert profile.origins["teacher.image_size"].startswith(origin)
    with pytest.raises(ProfileError, match=r"`teacher\.image_size`"):
        read(text(teacher=f'name = "fixed"\n{weights}\nimage_size = 50'))


def test_a_name_that_no_file_can_have_is_told_in_words(read):
    with pytest.raises(ProfileError) as caught:
        read(teacher="n" * 300 + ".pt")
    assert caught.value.problems[0].message.endswith("is not a path: file name too long")


def test_a_device_is_not_taken_for_its_own_nearest_name(read):
    with pytest.raises(ProfileError) as caught:
        read(teacher="/dev/null")
    (problem,) = caught.value.problems
    assert (problem.message, problem.hint) == ("`/dev/null` is a pipe or device, not a run directory", "")
