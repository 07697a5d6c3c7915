"""The data of a profile, what their task is, and how they are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch

from distillctl.api.data import ArrayImages, Images, Splits
from distillctl.api.returned import described
from distillctl.api.task import PLAIN_LOSS, LossOptions, Task
from distillctl.data import EvalLoader, Share, eval_loader, limit_training
from distillctl.data.inspection import inspect
from distillctl.data.skipping import told, without_broken
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.errors import PluginError, ProfileError
from distillctl.plugin.registry import Registry, load, load_class
from distillctl.profile.schema import Profile


def build_splits(profile: Profile, *, skips: bool = True) -> Splits:
    """The data of a profile, without broken files if its `dataset.on_error` is `skip`, cut to `dataset.limit`.

    skips: whether `on_error` counts.
    """
    choice = profile.dataset
    splits: Splits = load(choice.spec.implementation, choice.spec.name)(choice.options, profile.seed)
    if not isinstance(splits, Splits):
        raise PluginError(f"the builder of the data set `{choice.spec.name}` returned {described(splits)}, where `Splits` is expected")
    if skips and getattr(choice.options, "on_error", None) == "skip":
        splits = without_broken(splits, profile.train.workers)
    return limit_training(splits, choice.table.limit, profile.seed) if choice.table.limit else splits


def task_class(profile: Profile, registry: Registry) -> type[Task]:
    """The task of a profile's data, before there are any.

    Raises:
        PluginError: no installed package has it.
    """
    spec = registry.tasks.get(profile.dataset.spec.task)
    return load_class(spec, Task, "task")


def build_task(profile: Profile, registry: Registry, splits: Splits | None = None) -> Task:
    """The task with the data of a profile, or with these.

    Raises:
        DistillError: the data are not there, or the profile states what their task does not know.
    """
    data = build_splits(profile) if splits is None else splits
    train = profile.train
    loss = LossOptions(train.focal, train.poly, train.class_weights)
    return task_class(profile, registry)(data, label_smoothing=train.label_smoothing, **({} if loss == PLAIN_LOSS else {"loss": loss}))


def inspected_task(profile: Profile, registry: Registry, white: float | None = None) -> tuple[Profile, Task, Sequence[str]]:
    """The task, after a look at every file of its data, and what is to be said of them; in the profile, what was measured is resolved.

    Args:
        profile: its digest stays, whatever is measured.
        registry: where its names were found.
        white: what was measured when the run began.

    Raises:
        DistillError: as `build_task`, or a file is broken.
    """
    splits = build_splits(profile)
    fixes = "white" in type(profile.dataset.options).model_fields  # otherwise no later command would know what was measured
    found = inspect(splits, measure=fixes, white=white if fixes else None)
    if found.white is not None and fixes:
        splits = replace(splits, view=replace(splits.view, white=found.white))
        table: Any = profile.resolved["dataset"]
        profile = replace(profile, resolved={**profile.resolved, "dataset": {**table, "white": found.white}})
    skipped = [f"WARNING: {told(splits.skipped)}"] if splits.skipped else []
    return profile, build_task(profile, registry, splits), [*skipped, *found.notes]


def tta_kind(profile: Profile, task: Task, images: Images, tta: str) -> Literal["", "flip", "ten_crop"]:
    """The test-time augmentation that is meant: `auto` is what the profile says, and that may leave it to the kind of data.

    Raises:
        ProfileError: an unknown word, or one that means nothing for the task or something else for these images.
    """
    if tta and not task.views:
        raise ProfileError(
            f"test-time augmentation means nothing for `{profile.dataset.spec.name}`: its task averages no views",
            where="--tta",
            hint="leave it out",
        )
    kind = profile.evaluate.tta if tta == "auto" else tta
    if kind == "auto":
        kind = "flip" if isinstance(images, ArrayImages) else "ten_crop"
    if kind not in ("", "flip", "ten_crop"):
        raise ProfileError(f"unknown test-time augmentation `{kind}`", where="--tta", hint="allowed: flip, ten_crop")
    if kind and not task.data.view.mirrored:
        raise ProfileError(
            f"`{kind}` mirrors images, and what is trained without mirrored images may take a mirrored one for another class: "
            f'`dataset.augment` of `{profile.dataset.spec.name}` is "{task.data.view.augment}"',
            where="--tta",
            hint="leave it out",
        )
    return cast(Literal["", "flip", "ten_crop"], kind)


def evaluation_loader(
    profile: Profile, task: Task, images: Images, device: torch.device, *, tta: str = "", processes: ProcessGroup = ALONE
) -> EvalLoader:
    """Batches of one split for an evaluation by these processes; `tta` is empty, `auto`, `flip` or `ten_crop`."""
    kind = tta_kind(profile, task, images, tta)
    return eval_loader(
        task.data,
        images,
        batch_size=max(1, profile.evaluate.batch_size // {"flip": 2, "ten_crop": 10}.get(kind, 1)),
        device=device,
        workers=profile.train.workers,
        tta=kind,
        tta_resize=profile.evaluate.tta_resize,
        share=Share(processes.rank, processes.count),
    )
