"""Where ImageNet may lie; looked for without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillctl import ProfileError, require_folder
from distillctl_imagenet.options import ImageNetOptions

_BELOW = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_DEVKIT = "ILSVRC2012_devkit_t12/data"


@dataclass(frozen=True)
class Places:
    """train, val: folders of images. beside: folders in which lists of labels and names may lie, the nearest first."""

    train: Path
    val: Path
    beside: tuple[Path, ...]

    def first(self, *names: str) -> Path | None:
        """The first file of one of these names."""
        return next((folder / name for folder in self.beside for name in names if (folder / name).is_file()), None)


def find(root: Path) -> Places:
    """The folders of images: in `root`, or in it as Kaggle packs them.

    Raises:
        ProfileError: there is no such folder, or no `train` and `val` in it.
    """
    require_folder(root)
    for base in (root / below for below in _BELOW):
        if (base / "train").is_dir():
            above = base.absolute().parents[:3] if base.name == "CLS-LOC" else ()
            near = dict.fromkeys((base / "val", base, root, *above))
            return Places(base / "train", base / "val", tuple(place for folder in near for place in (folder, folder / _DEVKIT)))
    packed = sorted(root.glob("*.tar*"))
    raise ProfileError(
        f"ImageNet is not in `{root}`: there is no folder `train`, nor `ILSVRC/Data/CLS-LOC/train` as Kaggle has it",
        where="[dataset]",
        hint=f"unpack `{packed[0]}` first: the images of each class into `train/CLASS/`, those of the validation into `val/`"
        if packed
        else "`dataset.root` is the folder with `train/CLASS/IMAGE` and `val`",
    )


def preview(options: ImageNetOptions) -> str:
    """Where the images lie.

    Raises:
        ProfileError: nowhere.
    """
    return f"ImageNet in `{find(options.root).train.parent}`"
