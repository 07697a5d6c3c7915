"""`[method]`: defaults and presets, wrappers, and the one weight of the label loss."""

from __future__ import annotations

import pytest

from distillctl import ProfileError

TWO = '[[method]]\nname = "dk"\n\n[[method]]\nname = "feat"\nweight = 3'


def test_method_replaces_tables_with_its_own_defaults(read, text):
    profile = read(text(method=TWO), method="wrap", overrides=["method.loops=5"])
    assert [m.spec.name for m in profile.methods] == ["wrap"]
    assert (profile.methods[0].table.weight, profile.task_weight) == (0.9, 0.1)
    assert profile.methods[0].options.loops == 5
    assert profile.origins["method.name"] == "command line"


def test_control_drops_the_teacher(read):
    profile = read(method="none")
    assert profile.teacher is None
    assert "teacher" not in profile.resolved
    assert read(overrides=["method.name=none"]).digest == profile.digest


def test_presets(read, text):
    profile = read(text(method='name = "dk"'))
    assert profile.methods[0].options.beta == 2.0
    assert (profile.methods[0].table.weight, profile.methods[0].table.warmup_epochs) == (0.5, 20.0)
    assert profile.origins["method.beta"] == "table 2"
    assert profile.origins["method.warmup_epochs"] == "default"


def test_preset_of_the_data_alone(read, text):
    profile = read(text(method='name = "dk"', student='name = "one/vgg13"'))
    assert (profile.methods[0].options.beta, profile.origins["method.beta"]) == (6.0, "table 1")


def test_stated_keys_win_over_presets(read, text):
    profile = read(text(method='name = "dk"\nbeta = 7'))
    assert (profile.methods[0].options.beta, profile.origins["method.beta"]) == (7.0, "profile:16")


@pytest.mark.parametrize("teacher", ['run = "runs/done"', 'profile = "teacher.toml"', 'name = "big"\nweights = "V1"'])
def test_presets_know_the_teacher_of_every_way(read, text, teacher):
    assert read(text(teacher=teacher), method="dk").methods[0].options.beta == 2.0


def test_task_weight_of_several(read, text):
    assert read(text(method=TWO)).task_weight == 1.0
    mixed = '[[method]]\nname = "kd"\n\n[[method]]\nname = "feat"\ntask_weight = 0.3'
    profile = read(text(method=mixed))
    assert profile.task_weight == 0.3
    assert [m.table.task_weight for m in profile.methods] == [0.3, 0.3]
    assert profile.origins["method.0.task_weight"] == "profile:19"


def test_wrapper_has_its_default_inside(read, text):
    (method,) = read(text(method='name = "wrap"')).methods
    assert method.inner.spec.name == "kd"
    assert method.inner.table.weight == 1.0


def test_inner_takes_presets_but_no_weights(read, text):
    profile = read(text(method='name = "wrap"\n[method.inner]\nname = "dk"'))
    inner = profile.methods[0].inner
    assert (inner.options.beta, inner.table.weight) == (2.0, 1.0)
    assert profile.resolved["method"]["inner"] == {"name": "dk", "beta": 2.0, "low": 0, "high": 1}
    assert profile.origins["method.inner.beta"] == "table 2"


def test_presets_may_depend_on_options_and_on_what_is_wrapped(read, text):
    def weight(method):
        profile = read(text(method=method))
        return profile.methods[0].table.weight, profile.origins["method.weight"]

    assert weight('name = "dk"\nhigh = 5') == (7.0, "table 3")
    assert weight('name = "dk"\nhigh = 4') == (0.5, "table 2")
    assert weight('name = "wrap"\n[method.inner]\nname = "dk"') == (4.0, "table 4")
    assert weight('name = "wrap"\n[method.inner]\nname = "kd"') == (0.9, "default")


def test_a_wrappers_preset_sets_options_of_what_it_wraps(read, text):
    """They win over its own presets, and the profile over both."""
    inner = 'name = "wrap"\n[method.inner]\nname = "dk"'
    pair = {"student": 'name = "seeing"'}
    profile = read(text(method=inner, **pair))
    (method,) = profile.methods
    assert (method.inner.options.beta, method.inner.options.low, method.table.weight) == (1.5, -1, 4.0)
    assert (profile.origins["method.inner.beta"], profile.origins["method.inner.high"]) == ("table 6", "default")
    assert profile.resolved["method"]["inner"] == {"name": "dk", "beta": 1.5, "low": -1, "high": 1}
    assert "inner.beta" not in profile.resolved["method"]
    assert read(text(method=f"{inner}\nbeta = 3.0", **pair)).methods[0].inner.options.beta == 3.0
    assert read(text(method=inner, student='name = "big"')).methods[0].inner.options.beta == 6.0, "of its own preset"


def test_wrappers_wrap_wrappers(read, text):
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


def test_method_that_needs_no_teacher(read, text):
    assert read(text(teacher=None, method='name = "alone"')).teacher is None


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ('name = "lost"', "profile.toml:15, [method]"),
        ('name = "lost"\n[method.inner]\nname = "kd"', "profile.toml:15, [method]"),
        ('name = "lost_preset"', "profile.toml:15, [method]"),
        ('[[method]]\nname = "feat"\n[[method]]\nname = "lost"\ninner = 3', "profile.toml:17, [[method]]"),
        ('name = "around"\n[method.inner]\nname = "lost"\n[method.inner.inner]\nname = "kd"', "profile.toml:17, [method.inner]"),
    ],
)
def test_options_that_do_not_load_are_told_once_with_their_place(read, text, method, place):
    """Whatever would have to know them: a wrapped method, or a preset that depends on an option."""
    with pytest.raises(ProfileError) as caught:
        read(text(method=method, train="epochs = 0"))
    lost, epochs = caught.value.problems
    assert "cannot be loaded from `distillctl_test_missing:Options`" in lost.message
    assert (lost.where, epochs.message) == (place, "`train.epochs` must be at least 1, not 0")
