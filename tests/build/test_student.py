"""A deployed student and what it sees, in one object."""

import numpy as np
import pytest
import torch

from distillctl import load_student
from distillctl.errors import DataError
from distillctl.models import deploy
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.testing.tiny_models import TINY_CNN, TinyCNN

INPUT = {"channels": 3, "size": 16, "resize": 20, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(3)
    model = TinyCNN(3, 4).eval()
    deploy.write_student(
        tmp_path, model, spec=TINY_CNN, shown_name="tiny_cnn", options={"width": 4}, outputs=3, classes=("a", "b", "c"),
        preprocessing=INPUT, package="distillctl-test", version="1", extra={},
    )  # fmt: skip
    registry = Registry()
    registry.models.add(TINY_CNN, Plugin("test", "distillctl-test", "1"))
    return tmp_path, model, registry


def test_model_and_transform(run):
    path, model, registry = run
    student = load_student(path, registry=registry)
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    middle = torch.from_numpy(picture[2:18, 7:23]).permute(2, 0, 1).double() / 255
    wanted = (middle - torch.tensor(INPUT["mean"])[:, None, None]) / torch.tensor(INPUT["std"])[:, None, None]
    assert torch.allclose(student.transform(picture).double(), wanted, atol=1e-6)
    assert not student.model.training
    assert student.classes == ("a", "b", "c")
    assert student.path == path
    with torch.no_grad():
        answers = model(torch.stack([student.transform(picture)] * 2))
    assert torch.equal(student.logits([picture, picture]), answers)


def test_only_pickles_of_students(tmp_path):
    with pytest.raises(DataError, match="holds no deployed student"):
        load_student(tmp_path, registry=Registry())
