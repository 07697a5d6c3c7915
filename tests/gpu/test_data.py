"""Batches and evaluations on a GPU are those of a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from distillctl.data import eval_loader, train_loader
from distillctl.engine.evaluate import evaluate
from distillctl.plugin.registry import load as load_object
from distillctl.testing import make_task, options_of

pytestmark = pytest.mark.timeout(90)
CPU = torch.device("cpu")


@pytest.mark.parametrize("channels_last", [False, True])
def test_resident_images(bench: Any, fenced: Any, channels_last: bool) -> None:
    make = {"batch_size": 8, "seed": 3, "workers": 0, "channels_last": channels_last}
    loader = train_loader(bench.splits, device=bench.device, **make)
    expected = [batch for epoch in (0, 1) for batch in train_loader(bench.splits, device=CPU, **make).epoch(epoch)]
    with fenced():
        batches = [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]
    for got, want in zip(batches, expected, strict=True):
        assert got.images.device.type == bench.device.type
        assert got.images.stride() == want.images.stride()
        torch.testing.assert_close(got.images.cpu(), want.images, rtol=1e-5, atol=1e-6)
        assert torch.equal(got.labels.cpu(), want.labels)
        assert torch.equal(got.index.cpu(), want.index)


def test_resident_views_for_an_evaluation(bench: Any, fenced: Any) -> None:
    make = {"batch_size": 8, "workers": 0, "tta": "flip"}
    loader = eval_loader(bench.splits, bench.splits.test, device=bench.device, **make)
    with fenced():
        batches = list(loader)
    for got, want in zip(batches, eval_loader(bench.splits, bench.splits.test, device=CPU, **make), strict=True):
        torch.testing.assert_close(got.images.cpu(), want.images, rtol=1e-5, atol=1e-6)


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """A data set of 24 image files of three classes."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee", "cat"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                Image.fromarray(draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    from distillctl.plugin.registry import Registry

    spec = Registry.load().datasets.get("imagefolder")
    options = options_of(spec, root=str(tmp_path / "images"), image_size=32)
    return load_object(spec.implementation, spec.name)(options, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_image_files_by_pinned_memory_and_a_second_stream(bench: Any, fenced: Any, files: Any, workers: int) -> None:
    make = {"batch_size": 10, "seed": 3, "channels_last": True}
    expected = [b for epoch in (0, 1) for b in train_loader(files, device=CPU, workers=0, **make).epoch(epoch)]
    loader = train_loader(files, device=bench.device, workers=workers, **make)
    busy = torch.randn(2048 if bench.device.type == "cuda" else 16, 2048, device=bench.device)
    try:
        first = list(loader.epoch(0))
        with fenced():
            second = []
            for batch in loader.epoch(1):
                busy = busy / busy.norm() @ busy.T @ busy if bench.device.type == "cuda" else busy  # the copies run beside it
                second.append(batch)
    finally:
        loader.close()
    for got, want in zip([*first, *second], expected, strict=True):
        assert got.images.device.type == bench.device.type
        torch.testing.assert_close(got.images.cpu(), want.images, rtol=1e-5, atol=1e-6)
        assert torch.equal(got.labels.cpu(), want.labels)
        assert torch.equal(got.index.cpu(), want.index)


def answers(bench: Any, model: nn.Module, device: torch.device) -> Tensor:
    """The logits that an evaluation sees."""
    task, seen = make_task(bench.splits), []
    hook = model.to(device).register_forward_hook(lambda module, given, result: seen.append(result.detach().cpu()))
    try:
        evaluate(task, model, eval_loader(task.data, task.data.test, batch_size=8, device=device, workers=0))
    finally:
        hook.remove()
        model.to(CPU)
    return torch.cat(seen)


@pytest.mark.parametrize("name", ["cifar/resnet20", "cifar/vgg8", "torchvision/resnet18"])
def test_evaluations_are_in_float32(bench: Any, tell: Any, ieee: None, name: str) -> None:
    """The gap to a CPU is one of rounding; the one of TF32, which training may use, is told beside it."""
    from distillctl.build.models import build_model

    spec = bench.registry.models.get(name)
    torch.manual_seed(3)
    model = build_model(make_task(bench.splits), spec, options_of(spec)).eval()
    for module in model.modules():  # statistics as of a trained network, so that activations neither die nor explode
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.cat([b.images for b in eval_loader(bench.splits, bench.splits.test, batch_size=8, device=CPU, workers=0)]))
    expected = answers(bench, model, CPU)
    if bench.device.type == "cpu":
        assert torch.equal(answers(bench, model, CPU), expected)
        return
    torch.backends.cudnn.allow_tf32 = True  # as torch has it where nobody says anything
    gap = float((answers(bench, model, bench.device) - expected).norm() / expected.norm())
    with torch.no_grad():
        images = torch.cat([b.images for b in eval_loader(bench.splits, bench.splits.test, batch_size=8, device=CPU, workers=0)])
        fast = model.to(bench.device).eval()(images.to(bench.device)).cpu()
    tell("relative gap of an evaluation to the CPU", gap)
    tell("the same with TF32", float((fast - expected).norm() / expected.norm()))
    assert gap < 1e-4
