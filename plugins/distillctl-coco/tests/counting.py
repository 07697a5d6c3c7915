"""A task for images with boxes that needs no detector: how many there are. Its answers are judged as detections of the whole picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from distillctl import DatasetSpec, Task, TaskSpec, hookimpl
from distillctl_detection.meter import FIGURES, DetectionMeter

DISTILLCTL_API = 1


class Counting(Task):
    """The number of boxes in an image."""

    metric = "map"
    names = FIGURES

    @property
    def outputs(self):
        return 1

    def label_loss(self, outputs, batch):
        count = torch.tensor([len(target["boxes"]) for target in batch.targets])
        return {"count": F.mse_loss(outputs["logits"].float()[:, 0], count.float())}

    def predict(self, model, batch):
        scores = model(batch.images).sigmoid()
        wholes = [F.pad(target["size"].flip(0).float(), (2, 0))[None] for target in batch.targets]
        label = torch.zeros(1, dtype=torch.int64)
        return [{"boxes": whole, "labels": label, "scores": score} for whole, score in zip(wholes, scores, strict=True)]

    def meter(self):
        return DetectionMeter(self.data.classes)

    def floor(self, images):
        return 0.0


@hookimpl
def register_task():
    return TaskSpec(name="counting", summary="how many boxes there are", implementation="counting:Counting")


@hookimpl
def register_dataset():
    return DatasetSpec(
        name="counted",
        summary="images with boxes",
        task="counting",
        implementation="distillctl_coco.data:build",
        options="distillctl_coco.options:CocoOptions",
    )
