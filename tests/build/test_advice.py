"""What is not wrong but without its effect is told by `check`, a dry run and `train`."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.build.advice import advice, average_advice
from distillctl.cli import run
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.profile.writing import write_toml

TABLES = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[teacher]
name = "resnet14"
checkpoint = "teacher.pt"
[method]
name = "{method}"
[train]
epochs = {epochs}
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("teacher.pt").touch()
    registry = Registry.load()

    def load_with(method: str, *overrides: str, epochs: int = 12) -> Profile:
        text = TABLES.format(method=method, epochs=epochs)
        if method in ("none", "byot"):
            text = text.replace('[teacher]\nname = "resnet14"\ncheckpoint = "teacher.pt"\n', "")
        Path("my.toml").write_text(text)
        return load("my.toml", registry=registry, overrides=overrides)

    return load_with


def only(texts: tuple[str, ...]) -> str:
    (text,) = texts
    return text


def test_a_warm_up_longer_than_the_run_says_how_far_the_weight_gets(check) -> None:
    text = only(advice(check("kd", "method.warmup_epochs=20")))
    assert text == "the weight of `kd` grows over 20 epochs (`warmup_epochs`), and the run has 12: it never passes 60% of 0.9"
    assert not advice(check("kd", "method.warmup_epochs=12"))
    assert not advice(check("kd", "method.warmup_epochs=20", "method.weight=0", "method.task_weight=1"))


@pytest.mark.parametrize(
    ("method", "overrides"), [("dkd", ()), ("reviewkd", ()), ("sdd", ('method.base="nkd"',)), ("lskd", ('method.inner.name="dkd"',))]
)
def test_a_published_warm_up_is_a_share_of_the_run(check, method: str, overrides: tuple[str, ...]) -> None:
    for epochs, warmup in ((240, 20.0), (12, 1.0), (120, 10.0), (100, 8.33), (480, 40.0)):
        profile = check(method, *overrides, epochs=epochs)
        assert profile.methods[0].table.warmup_epochs == warmup
        assert (", 20 of 240 epochs" in profile.origins["method.warmup_epochs"]) == (epochs != 240)
        assert not advice(profile)
        Path("again.toml").write_text(write_toml(dict(profile.resolved)))
        assert load("again.toml", registry=Registry.load()).digest == profile.digest
    assert check(method, *overrides, "method.warmup_epochs=20").methods[0].table.warmup_epochs == 20.0


def test_the_warm_up_of_another_data_set_has_its_own_length(check) -> None:
    Path("photos/train/a").mkdir(parents=True)
    Path("photos/train/b").mkdir()
    photos = ('dataset={name="imagefolder", root="photos", family="imagenet"}', 'student.name="torchvision/resnet18"')
    profile = check("dkd", *photos, 'teacher={name="torchvision/resnet34", checkpoint="teacher.pt"}', epochs=200)
    assert profile.methods[0].table.warmup_epochs == 2.0


@pytest.mark.parametrize("value", ["1", "0.5"])
def test_a_warm_up_within_the_first_epoch_has_no_effect(check, value: str) -> None:
    text = only(advice(check("kd", f"method.warmup_epochs={value}")))
    assert text == f"`warmup_epochs = {value}` of `kd` has no effect: its first epoch has the whole weight already"
    two = TABLES.format(method="kd", epochs=12).replace("[method]", "[[method]]")
    Path("two.toml").write_text(two + f'[[method]]\nname = "sp"\nwarmup_epochs = {value}\n')
    assert "of `sp` has no effect" in only(
        advice(load("two.toml", registry=Registry.load(), overrides=["method.0.task_weight=1", "method.1.task_weight=1"]))
    )
    assert not advice(check("kd", "method.warmup_epochs=0"))
    assert not advice(check("kd", "method.warmup_epochs=2"))


@pytest.mark.parametrize("key", ["train.keep_every", "evaluate.every"])
def test_what_happens_less_often_than_the_run_is_long_is_told(check, key: str) -> None:
    assert f"`{key} = 13` is more than the run's 12 epochs" in only(advice(check("kd", f"{key}=13")))
    assert not advice(check("kd", f"{key}=12"))


@pytest.mark.parametrize("method", ["sp", "rkd", "cc", "pkt", "dist"])
def test_methods_that_compare_images_need_two(check, method: str) -> None:
    assert f"`{method}` compares the images" in only(advice(check(method, "train.batch_size=1")))
    assert not advice(check(method, "train.batch_size=16", "train.accumulate=8"))
    assert advice(check(method, "train.batch_size=16"), processes=16)
    assert not advice(check(method, "train.batch_size=16", "method.gather=true"), processes=16)


def test_more_parts_than_a_batch_gives_are_told(check) -> None:
    profile = check("kd", "train.batch_size=16", "train.accumulate=16")
    assert "`train.accumulate = 16` acts as 8" in only(advice(profile))
    assert "`train.accumulate = 16` acts as 2" in only(advice(profile, processes=4))


@pytest.mark.parametrize("method", ["crd", "kd", "pkd"])
def test_a_memory_or_a_map_makes_one_image_enough(check, method: str) -> None:
    assert not advice(check(method, "train.batch_size=1"))


def test_what_needs_several_processes_is_told_where_there_is_one(check) -> None:
    profile = check("sp", "train.sync_batchnorm=true", "method.gather=true")
    assert not advice(profile)
    assert not advice(profile, processes=2)
    assert [text.split(" has no effect")[0] for text in advice(profile, processes=1)] == ["`train.sync_batchnorm`", "`gather` of `sp`"]


def test_dot_needs_both_gradients(check) -> None:
    assert "is without a method" in only(advice(check("none", 'optimizer.name="dot"')))
    assert "is without a label loss" in only(advice(check("kd", 'optimizer.name="dot"', "method.task_weight=0")))
    assert not advice(check("kd", 'optimizer.name="dot"'))


def test_an_average_that_never_leaves_the_start_is_told(check) -> None:
    profile = check("kd", "train.ema=0.9999", "train.ema_ramp=0")
    assert "79% of the moving average are still the initial weights" in only(average_advice(profile, 200))
    assert not average_advice(profile, 10_000)
    assert not average_advice(check("kd", "train.ema=0.9999"), 200)
    assert not average_advice(check("kd"), 200)


def test_check_prints_it(check, capsys: pytest.CaptureFixture[str]) -> None:
    check("kd")
    assert run(["check", "my.toml", "--set", "method.warmup_epochs=20"]) == 0
    assert "warning: the weight of `kd` grows over 20 epochs" in capsys.readouterr().out


def test_classes_that_are_balanced_twice(check) -> None:
    weights = 'train.class_weights="balanced"'
    assert "counts rare classes more beside `train.sampler`" in only(advice(check("kd", 'train.sampler="balanced"', weights)))
    assert not advice(check("kd", weights))
    assert not advice(check("kd", 'train.sampler="balanced"'))
