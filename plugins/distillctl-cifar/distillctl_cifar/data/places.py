"""Where CIFAR-10 and CIFAR-100 may lie, looked for without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distillctl import ProfileError
from distillctl_cifar.options import CIFAROptions


class Files(NamedTuple):
    """Names that torchvision gives: of the data set, its folder and its archive."""

    title: str
    folder: str
    archive: str


class Place(NamedTuple):
    """Something that is there. kind: torchvision's `files`, `folders` of images, or torchvision's `archive`."""

    kind: str
    path: Path


FILES = {
    "cifar10": Files("CIFAR-10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": Files("CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz"),
}


def find(name: str, root: Path) -> Place | None:
    """What there is of a data set; None if there is nothing.

    In this order: `root` itself as an archive, torchvision's folder in it, `root` with folders of images, torchvision's folder beside it,
    torchvision's archive in it or beside it.
    """
    return next(_places(name, root), None)


def _places(name: str, root: Path) -> Iterator[Place]:
    files = FILES[name]
    if root.is_file():
        yield Place("archive", root)
    if (inside := root / files.folder).is_dir():
        yield Place("files", inside)
    if (root / "train").is_dir() or (root / "test").is_dir():
        yield Place("folders", root)
    if (beside := root.parent / files.folder).is_dir():
        yield Place("files", beside)
    yield from (Place("archive", file) for folder in (root, root.parent) if (file := folder / files.archive).is_file())


def missing(name: str, root: Path) -> ProfileError:
    """That there is nothing, and what to do."""
    files = FILES[name]
    return ProfileError(
        f"there is no {files.title} at `{root}`: neither torchvision's files (looked for `{root / files.folder}` and "
        f"`{root.parent / files.folder}`) nor image folders (looked for `{root / 'train'}/<class>/*.png` and "
        f"`{root / 'test'}/<class>/*.png`)",
        where="[dataset]",
        hint="download torchvision's files with `--set dataset.download=true`, or say where they are with `--set dataset.root=FOLDER`",
    )


def preview_cifar10(options: CIFAROptions) -> str:
    """Where CIFAR-10 lies.

    Raises:
        ProfileError: nowhere, and it is not to be downloaded.
    """
    return _preview("cifar10", options)


def preview_cifar100(options: CIFAROptions) -> str:
    """Where CIFAR-100 lies.

    Raises:
        ProfileError: nowhere, and it is not to be downloaded.
    """
    return _preview("cifar100", options)


def _preview(name: str, options: CIFAROptions) -> str:
    place = find(name, options.root)
    if place is None and not options.download:
        raise missing(name, options.root)
    return f"{FILES[name].title} " + (f"in `{place.path}`" if place else f"will be downloaded into `{options.root}`")
