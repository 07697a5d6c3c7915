"""The options of `[train]` that change the images of a batch."""

from __future__ import annotations

from distillctl.api.task import Task
from distillctl.engine.mixing import Mixing
from distillctl.errors import ProfileError
from distillctl.profile.schema import TrainTable


def mixing_of(train: TrainTable, task: Task) -> Mixing | None:
    """What is done to the batches of a run; None if they stay as they are.

    Raises:
        ProfileError: the task could not learn from such images.
    """
    stated = [name for name in ("mixup", "cutmix", "erase") if getattr(train, name)]
    if stated and not task.mixes:
        raise ProfileError(
            f"`train.{stated[0]}` does not work on this data set, whose targets are not classes", where="train", hint="leave it out"
        )
    mixed = [name for name in stated if name != "erase"]
    if mixed and task.data.unlabelled_share:
        raise ProfileError(f"`train.{mixed[0]}` mixes labels, and some images have none", where="train", hint="leave it out")
    share = 1.0 if train.mix_share is None else train.mix_share
    return Mixing(train.mixup, train.cutmix, share, train.erase, task.outputs) if stated else None
