"""Several teachers as one network, and what is refused of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from distillctl.build.models import TeacherModel
from distillctl.build.teachers import check_several, hashes_of, names_of, one_network
from distillctl.errors import ProfileError
from distillctl.testing import TINY_CNN


def teacher(shown: str, classes: tuple[str, ...] = ()) -> TeacherModel:
    return TeacherModel(TINY_CNN, nn.Flatten(), shown, None, classes=classes, one_size=shown == "b")


def test_names_are_their_own_and_have_no_dots() -> None:
    assert names_of(["resnet20", "resnet18.a1_in1k", "resnet20"]) == ["resnet20", "resnet18_a1_in1k", "resnet20-2"]


def test_one_is_itself_and_several_are_their_mean() -> None:
    one, other = teacher("a", ("x", "y")), teacher("b")
    assert one_network([one]) is one
    both = one_network([one, other])
    assert (both.spec.name, both.shown, both.classes, both.one_size, both.source) == ("a+b", "a+b", ("x", "y"), True, None)
    images = torch.randn(2, 1, 1, 2)
    torch.testing.assert_close(both.model(images).softmax(1), images.flatten(1).softmax(1))
    assert hashes_of([one, other]) == {"a": None, "b": None}
    assert (hashes_of([one]), hashes_of([])) == (None, None)


@pytest.mark.parametrize("classes", [("y", "x"), ("x", "y", "z")])
def test_other_classes_or_another_order_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ProfileError, match="the teachers `a` and `a-2` tell other classes apart"):
        one_network([teacher("a", ("x", "y")), teacher("b"), teacher("a", classes)])


def profile(teachers: int, weights: object = None) -> Any:
    spec, table = SimpleNamespace(name="kd", needs_teacher=False), SimpleNamespace(teacher_weights=weights)
    data = SimpleNamespace(spec=SimpleNamespace(name="toys"))
    return SimpleNamespace(teachers=[None] * teachers, dataset=data, methods=[SimpleNamespace(spec=spec, table=table, inner=None)])


def task(*gives: str, cuts_rows: bool = False, label: int = 0) -> Any:
    data = SimpleNamespace(train=SimpleNamespace(labels=torch.tensor([0, label])))
    return SimpleNamespace(gives=frozenset(gives), cuts_rows=cuts_rows, data=data)


@pytest.mark.parametrize("odd", [task("labels"), task("labels", "logits", cuts_rows=True)])
def test_answers_that_have_no_mean_are_refused(odd: Any) -> None:
    check_several(profile(1), odd)
    with pytest.raises(ProfileError, match="there are 2 teachers, and their answers to images of `toys` have no mean"):
        check_several(profile(2), odd)


@pytest.mark.parametrize("bare", [task("logits"), task("labels", "logits", label=-1)])
def test_confidence_needs_a_label_of_every_image(bare: Any) -> None:
    check_several(profile(2), bare)
    check_several(profile(2, "confidence"), task("labels", "logits"))
    with pytest.raises(ProfileError, match="some images of `toys` have none"):
        check_several(profile(2, "confidence"), bare)
