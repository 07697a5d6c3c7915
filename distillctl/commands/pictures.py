"""Small pictures of the images to which student and teacher answer most differently, made where the data are at hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillctl.analysis.differing import Pictures, most_different
from distillctl.analysis.per_class import same_images
from distillctl.api.data import Images
from distillctl.api.task import Task
from distillctl.data import eval_loader
from distillctl.data.pixels import unnormalised
from distillctl.rundir.answers import Answers

SIDE = 96
"""Pixels of a picture's longer side; smaller images stay as they are."""


def pictures_of(task: Task, split: str, student: Answers, teacher: Answers) -> Pictures | None:
    """Pictures as the student sees the images, without normalisation; None where the two did not answer to the same images."""
    images: Images = getattr(task.data, split)
    if not same_images(student, teacher) or len(student.index) != len(images):
        return None
    places = student.index[most_different(student, teacher)]
    return Pictures(split, tuple(places.tolist()), tuple(map(encoded, pixels(task, images, places.tolist()))))


def pixels(task: Task, images: Images, places: Sequence[int]) -> list[Tensor]:
    """Images at these places as an evaluation shows them, before they are normalised: uint8, (C, height, width) each."""
    if not places:
        return []
    chosen = images.subset(torch.tensor(places))
    with closing(eval_loader(unnormalised(task.data), chosen, batch_size=len(places), device=torch.device("cpu"), workers=0)) as loader:
        return [image for batch in loader for image in batch.images.round().clamp(0, 255).to(torch.uint8)]


def encoded(image: Tensor) -> bytes:
    """A file of a picture: PNG of a small image, JPEG of a larger one."""
    shown = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(shown[:, :, 0] if shown.shape[2] == 1 else shown[:, :, :3]))
    small = max(picture.size) <= SIDE // 2
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG" if small else "JPEG", **({"optimize": True} if small else {"quality": 85}))
    return file.getvalue()
