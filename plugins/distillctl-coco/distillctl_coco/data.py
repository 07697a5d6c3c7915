"""Images with boxes as splits of image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from distillctl import DataError, FileImages, JointViews, Splits, View, stratified_split, upright_size
from distillctl_coco.coco_json import read_coco
from distillctl_coco.listed import Listed
from distillctl_coco.options import LONG_SIDE, MIN_VISIBLE, SCALE_RANGE, SHORT_SIDES, CocoOptions
from distillctl_coco.places import find
from distillctl_coco.sides import STRIDE, Sides, wide
from distillctl_coco.unlabelled import SHARE, find_unlabelled, with_unlabelled
from distillctl_coco.views import Canvas
from distillctl_coco.yolo import read_names, read_yolo


def build(options: CocoOptions, seed: int) -> Splits:
    """The images with their boxes, split as they lie there.

    Raises:
        distillctl.ProfileError: the data set is missing.
        distillctl.DataError: labels cannot be read or contradict each other.
    """
    places = find(options)
    if options.format == "yolo":
        names = read_names(options.root)
        read = {name: read_yolo(place, names) for name, place in places.items()}
    else:
        read = {name: read_coco(place.labels, place.images) for name, place in places.items()}
    first = next(iter(read))
    classes = read[first].categories
    for name, listed in read.items():
        if listed.categories != classes:
            raise DataError(f"`{places[name].labels}` has other categories than `{places[first].labels}`")
    chosen = _chosen(tuple(name for _, name in classes), options.classes)
    parts = {name: _images(listed, chosen, len(classes)) for name, listed in read.items()}
    names = tuple(classes[label][1] for label in chosen)
    carved = ""
    if "train" in parts and "val" not in parts and options.val is None and options.val_fraction:
        kept, out = stratified_split(torch.zeros(len(parts["train"]), dtype=torch.int64), options.val_fraction, seed)
        if len(out):
            parts["val"], parts["train"] = parts["train"].subset(out), parts["train"].subset(kept)
            carved = " (carved from train by seed)"
    more: list[Path] = []
    if options.unlabelled is not None:
        more = find_unlabelled(options.unlabelled, (path for name in ("val", "test") if name in parts for path in parts[name].paths))
    share = (options.unlabelled_share or SHARE) if more and "train" in parts else 0.0
    sizes = [f"{name} {len(p)} images with {len(p.targets.boxes)} boxes" + (carved if name == "val" else "") for name, p in parts.items()]
    left_out = sum(listed.left_out for listed in read.values())
    told = f"; {left_out} annotation{'' if left_out == 1 else 's'} left out, which `check-data` names" if left_out else ""
    seen = parts["train"].targets.labels if "train" in parts else torch.arange(len(names))
    missing = [name for label, name in enumerate(names) if not (seen == label).any()]
    bare = f"classes without a box in train ({len(missing)}): {', '.join(missing[:10])}{', …' if len(missing) > 10 else ''}"
    if more:
        told += f"; {len(more)} of train without labels, from `{options.unlabelled}`: {f'{share:g} of each batch' if share else 'all'}"
        parts["train"] = with_unlabelled(parts.get("train"), more)
    joint, view = _views(options)
    if isinstance(joint, Sides):
        parts["train"] = _sized(parts["train"])
        if options.aspect_batches and share:
            raise DataError(
                "`aspect_batches` does not know shares of a batch without labels", where="dataset", hint="`aspect_batches = false`"
            )
        if options.aspect_batches is not False and not share:
            parts["train"] = replace(parts["train"], groups=wide(parts["train"].targets.sizes))
    return Splits(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        classes=names,
        class_ids=[classes[label][0] for label in chosen] if options.format == "coco" else (),
        mean=tuple(options.mean),
        std=tuple(options.std),
        view=view,
        joint=joint,
        unlabelled_share=share,
        description=f"boxes of `{options.root}` ({options.format}): {', '.join(sizes)}{told}",
        remarks=(*(remark for listed in read.values() for remark in listed.remarks), *([bare] if missing else [])),
    )


def _views(options: CocoOptions) -> tuple[JointViews, View]:
    """How images are cut, and the sizes of what is cut."""
    view = View(
        size=options.image_size,
        augment="none" if options.augment == "none" else "crop_flip",  # mirrored or not
        max_megapixels=options.max_megapixels,
        white=options.white,
        background=options.background,
    )
    if options.resize == "sides":
        shorts = options.short_sides or SHORT_SIDES
        sides = Sides(shorts, options.long_side or LONG_SIDE, mirrored=options.augment == "flip")
        largest = sides.largest(sorted_by_shape=options.aspect_batches is not False)
        return sides, replace(view, size=shorts[-1], largest=largest, multiple=STRIDE, long_side=sides.long_side)
    jitter = options.augment == "jitter"
    fill = [round(255 * value) for value in options.mean]
    canvas = Canvas(
        options.image_size,
        options.augment,
        options.scale_range or SCALE_RANGE,
        MIN_VISIBLE if jitter and options.min_visible is None else options.min_visible or 0.0,
        fill,
    )
    return canvas, replace(view, canvas=fill)


def _sized(images: FileImages) -> FileImages:
    """The same images, of which all sizes are known where their files can be read: YOLO's labels do not state them."""
    unknown = (images.targets.sizes == 1).all(1)
    if not unknown.any():
        return images
    paths = [images.paths[number] for number in unknown.nonzero().flatten().tolist()]
    sizes = images.targets.sizes.clone()
    sizes[unknown] = torch.tensor([_size(path) for path in paths])
    return replace(images, targets=images.targets.in_pixels(sizes))


def _size(path: Path) -> tuple[int, int]:
    """Of a file that cannot be read (1, 1): it is told where it is decoded, or left out."""
    try:
        return upright_size(path)
    except DataError:
        return 1, 1


def _chosen(names: tuple[str, ...], wanted: list[str] | None) -> list[int]:
    """Positions of the classes that are to be found, in their order."""
    if wanted is None:
        return list(range(len(names)))
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(f"there is no class `{unknown[0]}`", where="dataset.classes", hint=f"one of {', '.join(names[:20])}")
    return [label for label, name in enumerate(names) if name in wanted]


def _images(listed: Listed, chosen: list[int], classes: int) -> FileImages:
    stated = None if bool((listed.targets.sizes == 1).all()) else listed.targets.sizes
    return FileImages(listed.files, targets=listed.targets if len(chosen) == classes else listed.targets.only(chosen), sizes=stated)
