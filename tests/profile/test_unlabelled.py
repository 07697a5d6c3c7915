"""What a profile may say of images without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved, load
from distillctl.profile.schema import Profile
from distillctl.profile.writing import write_toml

PROFILE = """
[dataset]
name = "imagefolder"
root = "photos"
labels = false
[student]
name = "resnet8"
[teacher]
name = "resnet8"
checkpoint = "teacher.pt"
[method]
name = "kd"
[train]
epochs = 1
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher.pt").write_bytes(b"")
    (tmp_path / "p.toml").write_text(PROFILE)
    return tmp_path


def read(registry: Registry, *overrides: str, method: str | None = None) -> Profile:
    return load("p.toml", registry=registry, overrides=overrides, method=method)


@pytest.mark.parametrize("method", ["kd", "at", "dist"])
def test_the_label_loss_has_no_weight(place: Path, registry: Registry, method: str) -> None:
    profile = read(registry, method=method)
    assert profile.dataset.task == "unlabelled"
    assert profile.task_weight == 0
    assert profile.resolved["method"]["task_weight"] == 0  # type: ignore[index]
    assert profile.origins["method.task_weight"] == "images without labels"
    (place / "resolved.toml").write_text(write_toml(profile.resolved))
    again = from_resolved(place, registry)
    assert (again.digest, again.task_weight) == (profile.digest, 0)


def test_with_labels_all_is_as_it_was(place: Path, registry: Registry) -> None:
    (place / "p.toml").write_text(PROFILE.replace("labels = false\n", ""))
    profile = read(registry)
    assert (profile.dataset.task, profile.task_weight) == ("classification", 0.1)


@pytest.mark.parametrize(
    ("overrides", "method", "words"),
    [
        (["method.task_weight=1.0"], None, "`method.task_weight` has no effect on images without labels"),
        ([], "none", "`none` learns nothing from a teacher, and without labels there is nothing else to learn from"),
        ([], "rdrop", "`rdrop` learns nothing from a teacher"),
        (["method.weight=0.0"], None, "all weights are 0"),
        (["train.label_smoothing=0.1"], None, "`train.label_smoothing` has no effect on images without labels"),
        (["train.focal=2.0"], None, "`train.focal` has no effect on images without labels"),
        (["train.poly=1.0"], None, "`train.poly` has no effect on images without labels"),
        (['train.class_weights="balanced"'], None, "`train.class_weights` has no effect on images without labels"),
    ],
)
def test_what_needs_labels_is_refused_in_one_sentence(
    place: Path, registry: Registry, overrides: list[str], method: str | None, words: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        read(registry, *overrides, method=method)
    assert [problem.message.startswith(words) for problem in caught.value.problems] == [True]


def test_a_stated_weight_of_zero_is_true(place: Path, registry: Registry) -> None:
    assert read(registry, "method.task_weight=0.0").task_weight == 0


def test_without_a_teacher_nothing_is_learnt(place: Path, registry: Registry) -> None:
    (place / "p.toml").write_text(PROFILE.replace('[teacher]\nname = "resnet8"\ncheckpoint = "teacher.pt"\n', ""))
    with pytest.raises(ProfileError, match=r"the method `kd` needs a \[teacher\]"):
        read(registry)


def test_a_teacher_on_labels_keeps_its_own_data(place: Path, registry: Registry) -> None:
    """The place that the command line states is that of the images without labels."""
    from distillctl.profile.reading import load_teacher_profile

    teacher = PROFILE.replace("labels = false\n", "").replace('[teacher]\nname = "resnet8"\ncheckpoint = "teacher.pt"\n', "")
    (place / "t.toml").write_text(teacher.replace('"kd"', '"none"').replace("photos", "birds"))
    (place / "p.toml").write_text(PROFILE.replace('name = "resnet8"\ncheckpoint = "teacher.pt"', 'profile = "t.toml"'))
    found = load_teacher_profile(read(registry, "dataset.root=elsewhere", "dataset.labelled=birds"), registry)
    assert str(found.dataset.options.root) == "birds"  # type: ignore[attr-defined]
