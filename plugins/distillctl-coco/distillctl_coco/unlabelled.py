"""Training images without labels: marked by `Images.labels`, which have `NO_LABEL` for them and 0 for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from distillctl import DataError, FileImages, list_images
from distillctl_coco.targets import BoxTargets

SHARE = 0.5
_LABELLED, _NO_LABEL = 0, -1
_HINT = "`dataset.unlabelled` names a folder of images, at any depth"


def find_unlabelled(folder: Path, held_out: Iterable[Path]) -> list[Path]:
    """The images below a folder.

    Raises:
        distillctl.DataError: there are none, or some of them are held out.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder `{folder}`", hint=_HINT)
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    found = [path for one in folders for path in list_images(one)]
    if not found:
        raise DataError(f"there is no image in `{folder}`", hint=_HINT)
    out = {path.resolve() for path in held_out}
    if inside := [path for path in found if path.resolve() in out]:
        raise DataError(
            f"{len(inside)} images of `{folder}`, such as `{inside[0]}`, would be learnt from and are held out, too",
            hint="`dataset.unlabelled` names a folder without validation and test images",
        )
    return found


def with_unlabelled(labelled: FileImages | None, more: Sequence[Path]) -> FileImages:
    """Labelled images, and behind them others, which have no boxes and the numbers after the largest."""
    known = _empty(0, 0) if labelled is None else labelled.targets
    assert isinstance(known, BoxTargets)
    first = int(known.image_ids.max()) + 1 if len(known) else 0
    paths = [] if labelled is None else labelled.paths
    labels = torch.tensor([_LABELLED] * len(paths) + [_NO_LABEL] * len(more))
    return FileImages([*paths, *more], labels, known.followed_by(_empty(first, len(more))))


def _empty(first: int, count: int) -> BoxTargets:
    """Targets without a box, of pictures whose sizes are not known."""
    none, rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    sizes = torch.ones(count, 2, dtype=torch.int64)
    return BoxTargets(torch.arange(first, first + count), sizes, rows, none.reshape(0, 4), rows, rows.bool(), none)
