"""Checkpoints in the layouts of the benchmarks load unchanged."""

import pytest
import torch

from distillctl.models.features import evaluating
from distillctl.weights.state_dict import read_state_dict
from distillctl_cifar.models import create

NAMES = ("resnet8", "resnet8x4", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "ResNet18")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained(name):
    """A model whose statistics are not those of the start."""
    model = create(name, 10)
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    return model


def repdistiller(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1).state_dict()
    return {"epoch": 240, "model": model.state_dict(), "accuracy": torch.tensor(74.64), "optimizer": optimizer}


def mdistiller_student(model):
    return {"model": model.state_dict()}


def mdistiller_trainer(model):
    """The whole distiller in `DataParallel`, with its teacher and a connector."""
    teacher = create("resnet14", 10)
    parts = {"student": model, "teacher": teacher, "connectors": torch.nn.Conv2d(3, 3, 1)}
    state = {f"module.{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    return {"epoch": 240, "model": state, "optimizer": {}, "best_acc": torch.tensor([76.32])}


def before_counters(model):
    """Written by PyTorch 0.4 and earlier, whose BN counts no batches."""
    return {"epoch": 240, "model": {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("resnet8x4", mdistiller_student),
        ("wrn_16_2", mdistiller_trainer),
        ("vgg8", before_counters),
        ("resnet8", repdistiller),
        *(pytest.param(name, repdistiller, marks=pytest.mark.slow) for name in NAMES if name != "resnet8"),
    ],
)
def test_layouts(name, layout, tmp_path):
    first, second = trained(name), create(name, 10)
    torch.save(layout(first), tmp_path / "student_best")
    second.load_state_dict(read_state_dict(tmp_path / "student_best"), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with evaluating(first), evaluating(second), torch.no_grad():
        torch.testing.assert_close(second(images), first(images), rtol=0, atol=0)
