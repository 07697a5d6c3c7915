"""What a method needs is compared with what a task gives, before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from distillctl.build.checks import _check_reads, check_quantise, check_sampler
from distillctl.errors import ProfileError


def choice(name: str, *reads: str, inner: Any = None) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name=name, reads=reads), inner=inner)


def test_what_is_wrapped_reads_too() -> None:
    task: Any = SimpleNamespace(gives={"logits"}, data=SimpleNamespace(unlabelled_share=0.0))
    _check_reads(choice("ctkd", "logits", inner=choice("kd", "logits")), task, "boxes")
    with pytest.raises(ProfileError, match="`dkd` reads labels, and `boxes` has none"):
        _check_reads(choice("ctkd", "logits", inner=choice("dkd", "logits", "labels")), task, "boxes")


@pytest.mark.parametrize(("freeze", "processes", "told"), [("stage1", 1, "student.freeze"), ("", 2, "one process"), ("", 1, "")])
def test_ranges_of_int8_are_learnt_for_all_layers_in_one_process(freeze: str, processes: int, told: str) -> None:
    profile: Any = SimpleNamespace(student=SimpleNamespace(table=SimpleNamespace(freeze=freeze)))
    group: Any = SimpleNamespace(count=processes)
    if not told:
        check_quantise(profile, group)
        return
    with pytest.raises(ProfileError, match=told):
        check_quantise(profile, group)


@pytest.mark.parametrize(("gives", "labels", "right"), [(("labels",), 3, True), (("labels",), 0, False), (("logits",), 3, False)])
def test_classes_can_be_balanced_where_images_have_some(gives: tuple[str, ...], labels: int, right: bool) -> None:
    class Images(list[int]):
        labels: list[int]

    images = Images([1, 2, 3])
    images.labels = [0] * labels
    task: Any = SimpleNamespace(gives=gives, data=SimpleNamespace(train=images, unlabelled_share=0.0))
    for sampler in (None, "balanced"):
        dataset = SimpleNamespace(spec=SimpleNamespace(name="boxes"))
        profile: Any = SimpleNamespace(train=SimpleNamespace(sampler=sampler), dataset=dataset)
        if sampler is None or right:
            check_sampler(profile, task)
            continue
        with pytest.raises(ProfileError, match=r"`train\.sampler` balances classes, and the images of `boxes` have none"):
            check_sampler(profile, task)
