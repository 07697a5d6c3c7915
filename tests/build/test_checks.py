"""What a method needs is compared with what a task gives, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from distillctl.api.specs import ModelSpec
from distillctl.build.checks import (
    _check_binary,
    _check_reads,
    _check_rows,
    check_compiles,
    check_quantise,
    check_sampler,
    check_teacher_norm,
)
from distillctl.errors import ProfileError, RunError


def choice(
    name: str, *reads: str, inner: Any = None, unit: str = "images", gather: bool = False, gives_head: bool = False, binary: bool = False
) -> Any:
    spec = SimpleNamespace(name=name, reads=reads, gives_head=gives_head, binary=binary)
    return SimpleNamespace(spec=spec, inner=inner, unit=unit, table=SimpleNamespace(gather=gather))


def test_what_is_wrapped_reads_too() -> None:
    task: Any = SimpleNamespace(gives={"logits"}, cuts_rows=False, data=SimpleNamespace(train=SimpleNamespace(labels=torch.zeros(2))))
    _check_reads(choice("ctkd", "logits", inner=choice("kd", "logits")), task, "boxes")
    with pytest.raises(ProfileError, match="`dkd` reads labels, and `boxes` has none"):
        _check_reads(choice("ctkd", "logits", inner=choice("dkd", "logits", "labels")), task, "boxes")


def test_where_rows_are_cut_out_of_images_only_those_have_labels_and_logits() -> None:
    task: Any = SimpleNamespace(
        gives={"labels", "logits"}, cuts_rows=True, data=SimpleNamespace(train=SimpleNamespace(labels=torch.zeros(2)))
    )
    _check_reads(choice("dkd", "labels", "logits", unit="rows"), task, "boxes")
    with pytest.raises(ProfileError, match="`crd` reads labels of whole images, and `boxes` has none"):
        _check_reads(choice("crd", "labels"), task, "boxes")
    task.cuts_rows = False
    _check_reads(choice("crd", "labels"), task, "boxes")


def test_what_means_nothing_for_rows_within_images_is_refused() -> None:
    task: Any = SimpleNamespace(cuts_rows=True)
    _check_rows(choice("sp", gather=True), task, "boxes")
    _check_rows(choice("dist", unit="rows"), task, "boxes")
    for refused, told in (
        (choice("dist", unit="rows", gather=True), "`gather` compares images of all processes"),
        (choice("simkd", gives_head=True), "`simkd` replaces the classifier of whole images"),
        (choice("outer", inner=choice("simkd", gives_head=True)), "`simkd` replaces"),
    ):
        with pytest.raises(ProfileError, match=told):
            _check_rows(refused, task, "boxes")
        _check_rows(refused, SimpleNamespace(cuts_rows=False), "boxes")  # type: ignore[arg-type]


def test_classes_are_not_compared_where_each_is_asked_for_by_itself() -> None:
    labels = ModelSpec(name="tagger", summary="a sigmoid for each class", implementation="nowhere:tagger", binary=True)
    kd = choice("kd", unit="rows", binary=True)
    for allowed in (kd, choice("at"), choice("outer", unit="rows", binary=True, inner=kd)):
        _check_binary(allowed, labels)
    for refused in ("dkd", "outer"):
        one = choice("dkd", unit="rows", inner=kd) if refused == "dkd" else choice("outer", inner=choice("dkd", unit="rows"))
        with pytest.raises(ProfileError, match="`dkd` compares the classes of a softmax, and `tagger` has a sigmoid for each class"):
            _check_binary(one, labels)
        _check_binary(one, replace(labels, binary=False))


def test_statistics_of_the_batch_need_a_teacher_that_takes_them() -> None:
    wanting: Any = [SimpleNamespace(name="kd", teacher_norm="running"), SimpleNamespace(name="reviewkd", teacher_norm="batch")]
    check_teacher_norm(wanting, nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), FrozenBatchNorm2d(4))), "deep")
    for norm in (FrozenBatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)):
        teacher = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
        check_teacher_norm(wanting[:1], teacher, "still")
        with pytest.raises(RunError, match=r"`reviewkd` wants .* statistics of the batch, and `still` has none that could"):
            check_teacher_norm(wanting, teacher, "still")


def test_a_forward_that_draws_is_not_compiled() -> None:
    profile: Any = SimpleNamespace(
        train=SimpleNamespace(compile="on"),
        optimizer=SimpleNamespace(spec=SimpleNamespace(separate_gradients=False)),
        dataset=SimpleNamespace(spec=SimpleNamespace(name="boxes")),
    )
    check_compiles(profile, [], draws=False)
    with pytest.raises(ProfileError, match="the shapes in a step on `boxes` depend on its images"):
        check_compiles(profile, [], draws=True)


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
