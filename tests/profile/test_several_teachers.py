"""`[[teacher]]`: several networks, and what a method says of them."""

from __future__ import annotations

import pytest

from distillctl import ProfileError
from distillctl.profile.reading import from_resolved
from distillctl.profile.writing import write_toml

TWO = '[[teacher]]\nname = "big"\ncheckpoint = "teacher.pth"\n\n[[teacher]]\nname = "seeing"\nweights = "V2"'


def test_each_table_has_its_own_way_and_input(read, text, folder, registry):
    profile = read(text(teacher=f'{TWO}\n[[teacher]]\nrun = "runs/done"\n[[teacher]]\nprofile = "teacher.toml"'))
    assert [choice.key for choice in profile.teachers] == ["teacher.0", "teacher.1", "teacher.2", "teacher.3"]
    assert [choice.spec and choice.spec.name for choice in profile.teachers] == ["big", "seeing", None, None]
    assert profile.teacher == profile.teachers[0]
    assert [one.teachers for one in profile.by_teacher] == [(choice,) for choice in profile.teachers]
    assert (profile.teachers[0].table.mean, profile.teachers[1].table.mean) == (None, [0.5, 0.5, 0.5])
    assert profile.origins["teacher.1.mean"] == "V2"
    assert [sorted(table) for table in profile.resolved["teacher"]][2:] == [["allow_untrained", "run"], ["allow_untrained", "profile"]]
    (folder / "resolved.toml").write_text(write_toml(profile.resolved))
    again = from_resolved(folder / "resolved.toml", registry)
    assert (again.teachers, again.digest) == (profile.teachers, profile.digest)


@pytest.mark.parametrize("override", ["teacher.allow_untrained=true", "teacher.0.allow_untrained=true", "teacher.big.allow_untrained=true"])
def test_one_is_the_same_as_a_plain_table(read, text, override):
    content = text(teacher='[[teacher]]\nname = "big"\ncheckpoint = "teacher.pth"')
    assert read(content).digest == read(text()).digest
    assert read(content).resolved == read(text()).resolved
    assert read(content, overrides=[override]).digest == read(text(), overrides=["teacher.allow_untrained=true"]).digest
    with pytest.raises(ProfileError) as caught:
        read(text(teacher='[[teacher]]\nname = "big"\ncheckpoint = "gone.pth"'))
    assert ":12, [teacher]" in caught.value.problems[0].where


@pytest.mark.parametrize("key", ["teacher.1", "teacher.seeing"])
def test_a_key_of_one_of_them(read, text, key):
    profile = read(text(teacher=TWO), overrides=[f"{key}.image_size=64"])
    assert [choice.table.image_size for choice in profile.teachers] == [None, 64]


@pytest.mark.parametrize("key", ["teacher.0", "teacher.teacher"])
def test_overrides_of_the_profile_of_one(read, text, key):
    tables = '[[teacher]]\nprofile = "teacher.toml"\n[[teacher]]\nrun = "runs/done"'
    profile = read(text(teacher=tables), overrides=[f"{key}.overrides.train.epochs=1"])
    assert [choice.table.overrides for choice in profile.teachers] == [{"train.epochs": 1}, {}]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.image_size=64", "several [[teacher]] tables, and the key does not say which"),
        ("teacher.2.image_size=64", "no [[teacher]] table number 2, only 0 to 1"),
        ("teacher.1={name='big'}", "`teacher.1` is a whole table"),
        ("teacher.1.run=runs/done", "[teacher] has `run` and `weights`"),
        ("teacher.0.checkpoint=gone.pth", "gone.pth"),
        ("teacher=[]", "`teacher` has no table"),
        ("teacher=3", "`teacher` must be a table"),
        ("teacher.1.overrides.seed=1", "`teacher.1.overrides` has no effect with `teacher.1.weights`"),
        ("teacher.1.name=nothing", "no model is called `nothing`"),
        ("method.teacher_weights=[0.7, 0.4]", "that sum to 1, and these sum to 1.1"),
        ("method.teacher_weights=[1.5, -0.5]", "must have numbers from 0 to 1"),
        ("method.teacher_weights=[nan, 1.0]", "`method.teacher_weights`"),
        ("method.teacher_weights=[0.5, 0.25, 0.25]", "has 3 numbers for 2 teachers"),
        ("method.teacher_weights=[1.0]", "`method.teacher_weights`"),
        ("method.teacher_weights=sure", "`method.teacher_weights`"),
        ("method.teachers=both", "`method.teachers`"),
        ("method={name='kd', teachers='each', teacher_weights='confidence'}", "`confidence` weighs each image's answers"),
        ("method={name='wrap', inner={name='kd', teachers='each'}}", "in [method.inner]: it belongs in the table of `wrap`"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(read, text, override, message):
    with pytest.raises(ProfileError) as caught:
        read(text(teacher=TWO), overrides=[override])
    assert any(message in problem.message for problem in caught.value.problems), [p.message for p in caught.value.problems]


def test_a_method_without_a_teacher_says_nothing_of_them(read, text):
    with pytest.raises(ProfileError, match=r"`method\.1\.teachers` has no effect on `alone`"):
        read(text(teacher=TWO, method='[[method]]\nname = "kd"\n[[method]]\nname = "alone"\nteachers = "each"'))


def test_many(read, text):
    with pytest.raises(ProfileError, match=r"there are 9 \[\[teacher\]\] tables, more than 8"):
        read(text(teacher='[[teacher]]\nrun = "runs/done"\n' * 9))


def test_what_a_method_says_of_them(read, text):
    profile = read(text(teacher=TWO, method='name = "kd"\nteachers = "each"\nteacher_weights = [0.333, 0.667]'))
    table = profile.methods[0].table
    assert (table.teachers, table.teacher_weights) == ("each", [0.333, 0.667])
    assert profile.resolved["method"]["teachers"] == "each"
    assert not {"teachers", "teacher_weights"} & read(text(teacher=TWO)).resolved["method"].keys()


def test_one_on_the_command_line_replaces_all(read, text, folder):
    content = text(teacher=TWO, method='name = "kd"\nteachers = "each"')
    profile = read(content, teacher="runs/done")
    assert profile.digest == read(text(), teacher="runs/done").digest
    with pytest.raises(ProfileError, match=r"`method\.teachers` has no effect without several"):
        read(content, teacher="runs/done", overrides=["method.teachers=mean"])
    with pytest.raises(ProfileError, match=r"`method\.teachers` has no effect without several"):
        read(text(method='name = "kd"\nteachers = "each"'))


def test_a_control_needs_none_of_them(read, text):
    profile = read(text(teacher=TWO), method="none")
    assert (profile.teachers, "teacher" in profile.resolved) == ((), False)


def test_presets_mean_several_of_one_model_alike(read, text):
    same = TWO.replace('"seeing"', '"big"')
    assert read(text(teacher=same, method='name = "dk"')).methods[0].options.beta == 2.0
    assert read(text(teacher=TWO, method='name = "dk"')).methods[0].options.beta == 6.0


def test_confidence_needs_labels_within_the_profile(read, text):
    table = read(text(teacher=TWO, method='name = "kd"\nteacher_weights = "confidence"')).methods[0].table
    assert table.teacher_weights == "confidence"
