"""The data of a profile, what their task is, and how they are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from distillctl.api.data import ArrayImages, Images, Splits
from distillctl.api.returned import described
from distillctl.api.task import PLAIN_LOSS, LossOptions, Task
from distillctl.build.models import teacher_state
from distillctl.data import EvalLoader, Share, eval_loader, limit_training
from distillctl.data.inspection import inspect
from distillctl.data.skipping import told, without_broken
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.errors import DataError, PluginError, ProfileError
from distillctl.models import deploy
from distillctl.plugin.registry import Registry, load, load_class
from distillctl.profile.reading import load_teacher_profile
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT, place

Kind = Literal["", "flip", "five_crop", "ten_crop", "multi_scale"]
"""Test-time augmentation that an evaluation can do."""

_VIEWS: Mapping[str, int] = {"flip": 2, "five_crop": 5, "ten_crop": 10, "multi_scale": 2}
"""By how much each makes what a network computes at once larger."""
_SCALES, _LARGE = (0.75, 1.0, 1.25), 96


def build_splits(profile: Profile, *, skips: bool = True) -> Splits:
    """The data of a profile, without broken files if its `dataset.on_error` is `skip`, cut to `dataset.limit`.

    skips: whether `on_error` counts.
    """
    choice = profile.dataset
    splits: Splits = load(choice.spec.implementation, choice.spec.name)(choice.options, profile.split_seed)
    if not isinstance(splits, Splits):
        raise PluginError(f"the builder of the data set `{choice.spec.name}` returned {described(splits)}, where `Splits` is expected")
    if skips and getattr(choice.options, "on_error", None) == "skip":
        splits = without_broken(splits, profile.train.workers)
    return limit_training(splits, choice.table.limit, profile.split_seed) if choice.table.limit else splits


def task_class(profile: Profile, registry: Registry) -> type[Task]:
    """The task of a profile's data, before there are any.

    Raises:
        PluginError: no installed package has it.
    """
    spec = registry.tasks.get(profile.dataset.task)
    return load_class(spec, Task, "task")


def build_task(profile: Profile, registry: Registry, splits: Splits | None = None) -> Task:
    """The task with the data of a profile, or with these.

    Raises:
        DistillError: the data are not there, or the profile states what their task does not know.
    """
    data = build_splits(profile) if splits is None else splits
    train, task = profile.train, task_class(profile, registry)
    bare = [len(part) for part in (data.train, data.val, data.test) if part is not None and not len(part.labels) and part.targets is None]
    if any(bare) and not task.compares:
        raise DataError(f"there are {max(bare)} images, but neither labels nor targets")
    loss = LossOptions(train.focal, train.poly, train.class_weights)
    return task(data, label_smoothing=train.label_smoothing, **({} if loss == PLAIN_LOSS else {"loss": loss}))


def inspected_task(
    profile: Profile, registry: Registry, white: float | None = None, root: Path = ROOT
) -> tuple[Profile, Task, Sequence[str]]:
    """The task, after a look at every file of its data, and what is to be said of them; in the profile, what was found is resolved.

    Args:
        profile: its digest stays, whatever is found.
        registry: where its names were found.
        white: what was measured when the run began.
        root: where the teacher's run lies, of which the number of outputs may be asked.

    Raises:
        DistillError: as `build_task`, or a file is broken, or nobody says how many outputs there are.
    """
    splits = build_splits(profile)
    if task_class(profile, registry).compares and not splits.outputs:
        splits = replace(splits, outputs=_outputs_of_teacher(profile, registry, root))
        profile = _resolved(profile, "num_classes", splits.outputs)
    fixes = "white" in type(profile.dataset.options).model_fields  # otherwise no later command would know what was measured
    found = inspect(splits, measure=fixes, white=white if fixes else None)
    if found.white is not None and fixes:
        splits = replace(splits, view=replace(splits.view, white=found.white))
        profile = _resolved(profile, "white", found.white)
    skipped = [f"WARNING: {told(splits.skipped)}"] if splits.skipped else []
    return profile, build_task(profile, registry, splits), [*skipped, *found.notes]


def _resolved(profile: Profile, option: str, value: object) -> Profile:
    """The profile with a value of [dataset] that was found."""
    table: Any = profile.resolved["dataset"]
    return replace(profile, resolved={**profile.resolved, "dataset": {**table, option: value}})


def teacher_run(profile: Profile, registry: Registry, root: Path = ROOT) -> Path | None:
    """The finished run of `teacher.profile`; None where the weights are named otherwise.

    Raises:
        ProfileError: that profile has no finished run.
    """
    assert profile.teacher is not None
    path = profile.teacher.table.profile
    if path is None:
        return None
    other = load_teacher_profile(profile, registry)
    _, run = place(other.name, other.digest, root=root)
    if run is None or not run.finished:
        raise ProfileError(f"the teacher of `{profile.path}` is not trained yet", hint=f"`distillctl train {path}` trains it")
    return run.path


def _outputs_of_teacher(profile: Profile, registry: Registry, root: Path) -> int:
    """How many logits the teacher gives: by its run, by the data of its profile, or by its classifier's weights.

    Raises:
        ProfileError: none of these says it.
    """
    choice = profile.teacher
    assert choice is not None
    folder = choice.table.run
    if choice.table.profile is not None:
        other = load_teacher_profile(profile, registry)
        _, run = place(other.name, other.digest, root=root)
        if run is None or not run.finished:
            return build_task(other, registry).outputs or _outputs_of_teacher(other, registry, root)
        folder = run.path
    if folder is not None:
        return int(deploy.read_model_json(folder)["num_classes"])
    assert choice.spec is not None
    weight = None if choice.spec.own_file else teacher_state(choice)[0].get(f"{choice.spec.classifier}.weight")
    if weight is None:
        raise ProfileError(
            f"the weights of the teacher `{choice.spec.name}` do not say how many classes it tells apart",
            where="[dataset]",
            hint="state it: `num_classes = 1000`",
        )
    return len(weight)


def tta_kind(profile: Profile, task: Task, images: Images, tta: str) -> Kind:
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
        kind = "flip" if isinstance(images, ArrayImages) or "ten_crop" not in task.views else "ten_crop"
    if kind not in ("", *_VIEWS):
        raise ProfileError(f"unknown test-time augmentation `{kind}`", where="--tta", hint=f"allowed: {', '.join(_VIEWS)}")
    if kind and kind not in task.views:
        allowed = ", ".join(task.views)
        why = f": {task.refused_views[kind]}" if kind in task.refused_views else ""
        message = f"the task of `{profile.dataset.spec.name}` averages no `{kind}`{why}"
        raise ProfileError(message, where="--tta", hint=f"allowed: {allowed}")
    if kind and task.data.view.largest is not None:
        raise ProfileError(f"`{kind}` needs views of one size, and those of this data set differ", where="--tta", hint="leave it out")
    if kind in ("flip", "ten_crop") and not task.data.view.mirrored:
        plain = ("multi_scale",) if isinstance(images, ArrayImages) else ("five_crop", "multi_scale")
        others = " or ".join(f"`--tta {name}`" for name in plain if name in task.views)
        raise ProfileError(
            f"`{kind}` mirrors images, and what is trained without mirrored images may answer them wrongly: training on "
            f"`{profile.dataset.spec.name}` mirrors none",
            where="--tta",
            hint=f"leave it out, or take {others}, which mirrors nothing" if others else "leave it out",
        )
    return cast(Kind, kind)


def tta_sizes(profile: Profile, task: Task, kind: Kind) -> tuple[int, ...]:
    """Side lengths in pixels over which `multi_scale` averages; of other kinds none.

    The view itself is among them where the factor is 1. Others are whole multiples of 32 pixels, the stride of most networks, where the
    view has 96 or more.

    Raises:
        ProfileError: there is no size but that of the view.
    """
    if kind != "multi_scale":
        return ()
    side, scales = task.data.view.size, profile.evaluate.tta_scales or _SCALES
    step = 32 if side >= _LARGE else 1
    sizes = tuple(dict.fromkeys(side if scale == 1 else max(step, step * round(scale * side / step)) for scale in scales))
    if sizes == (side,):
        told = ", ".join(f"{scale:g}" for scale in scales)
        raise ProfileError(
            f"`multi_scale` averages over several sizes, and at {side} pixels the factors {told} give that one alone",
            where="--tta",
            hint="`evaluate.tta_scales` has others",
        )
    return sizes


def evaluation_loader(
    profile: Profile, task: Task, images: Images, device: torch.device, *, tta: str = "", processes: ProcessGroup = ALONE
) -> EvalLoader:
    """Batches of one split for an evaluation by these processes; `tta` is empty, `auto`, or one of `Task.views`."""
    kind = tta_kind(profile, task, images, tta)
    return eval_loader(
        task.data,
        images,
        batch_size=max(1, profile.evaluate.batch_size // _VIEWS.get(kind, 1)),
        device=device,
        workers=profile.train.workers,
        tta="" if kind == "multi_scale" else kind,
        tta_resize=profile.evaluate.tta_resize,
        share=Share(processes.rank, processes.count),
    )
