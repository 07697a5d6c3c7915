"""Influences over the checkpoints of a run are those of Captum's implementation."""

import numpy as np
import pytest
import torch
from captum.influence import TracInCP, TracInCPFast
from torch import nn
from torch.utils.data import TensorDataset

from distillctl_tracin.gradients import gradients_of
from distillctl_tracin.influence import add_influences

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients:UserWarning")  # Captum's own
TRAIN, TEST = [17, 3, 22, 8, 9, 29, 0], list(range(0, 40, 3))
LAYERS = ["fc", "layer3"]


def seen(run, split, index):
    batches = list(run.batches(split, index, size=5))
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def captums(run, kind, **more):
    """(train, test). Captum loads checkpoints itself, from their files, and is told the rates as this run's records have them."""
    lines = {epoch: run.records[epoch]["lr"] for epoch in run.kept}
    files = {str(run.path / "checkpoints" / f"epoch-{epoch:04d}.pt"): rate for epoch, rate in lines.items()}

    def load(model, path):
        model.load_state_dict(torch.load(path, weights_only=True)["student"])
        return files[path]

    with run.student(run.kept[0]) as model:
        images, labels = seen(run, "test", TEST)
        traced = kind(
            model, train_dataset=TensorDataset(*seen(run, "train", TRAIN)), checkpoints=list(files), checkpoints_load_func=load,
            batch_size=4, **more,
        )  # fmt: skip
        return traced.influence((images, labels)).T.numpy()


def ours(run, layers):
    values = np.zeros((len(TRAIN), len(TEST)), np.float32)
    rates = {epoch: run.records[epoch]["lr"] for epoch in run.kept}
    add_influences(run, lambda model: gradients_of(model, "fc", layers), rates, TRAIN, TEST, "test", values)
    return values


@pytest.mark.slow
def test_of_the_last_layer(student):
    fast = captums(student, TracInCPFast, final_fc_layer="fc", loss_fn=nn.CrossEntropyLoss(reduction="sum"))
    assert len(student.kept) == 2
    assert np.abs(ours(student, ["fc.weight"]) - fast).max() <= 1e-5 * np.abs(fast).max()  # it leaves the bias out
    whole = captums(student, TracInCP, layers=["fc"], loss_fn=nn.CrossEntropyLoss(reduction="none"), sample_wise_grads_per_batch=False)
    assert np.abs(ours(student, ["last"]) - whole).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("layers", [LAYERS, pytest.param(["all"], marks=pytest.mark.slow)], ids=["some", "all"])
def test_of_other_layers(student, layers):
    # Captum goes by modules: containers of parameters are named as those that have some themselves.
    with student.student(2) as model:
        names = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    chosen = [name for name in names if layers == ["all"] or name.partition(".")[0] in layers]
    theirs = captums(student, TracInCP, layers=chosen, loss_fn=nn.CrossEntropyLoss(reduction="none"), sample_wise_grads_per_batch=False)
    assert np.abs(ours(student, layers) - theirs).max() <= 1e-5 * np.abs(theirs).max()
