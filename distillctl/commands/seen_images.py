"""Held-out images on which the teacher was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillctl.api.data import Splits
from distillctl.build.data import build_splits
from distillctl.data.splits import shared_images
from distillctl.errors import DistillError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import RunDirectory


def seen_by_teacher(profile: Profile, registry: Registry, splits: Splits, folder: Path | None) -> list[str]:
    """Warnings of held-out images on which the teacher was trained: its run may have split the same data by another seed."""
    choice = profile.teacher
    folder = folder or (choice.table.run if choice is not None else None)
    if choice is None or folder is None:
        return []
    try:
        other = from_resolved(RunDirectory.open(folder).resolved, registry, student_only=True)
        if (other.split_seed, _data(other)) == (profile.split_seed, _data(profile)):
            return []
        learnt = build_splits(other).train
    except DistillError:  # the teacher comes from elsewhere: its data are not here, so nothing can be compared
        return []
    why = "its run split the data otherwise than this one"
    if other.split_seed != profile.split_seed:
        why += (
            f", by seed {other.split_seed} and not {profile.split_seed}; `--set dataset.split_seed={other.split_seed}` splits as it did, "
            f"`--set {choice.key}.overrides.dataset.split_seed={profile.split_seed}` trains a teacher on these training images"
        )
    whose = f" `{choice.key}`" if "." in choice.key else ""
    return [
        f"WARNING: the teacher{whose} learnt {count} of the {len(images)} {name} images, so its figures are too good: {why}"
        for name, images in (("val", splits.val), ("test", splits.test))
        # A few may be duplicates within the data: CIFAR's test images have twins among those for training.
        if images is not None and (count := shared_images(images, learnt)) > len(images) // 100
    ]


def _data(profile: Profile) -> dict[str, Any]:
    """`[dataset]` but the seed, which another name may state."""
    table: Any = profile.resolved["dataset"]
    return {key: value for key, value in table.items() if key != "split_seed"}
