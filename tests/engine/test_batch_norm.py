"""Which batch normalisation looks at all processes; that it computes what one process would is shown in `tests/distributed`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from distillctl import LenientBatchNorm2d
from distillctl.distributed import process_group
from distillctl.engine.batch_norm import synchronise

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(("device", "torchs"), [(CUDA, True), (CPU, False)])
def test_a_gpu_has_torchs_and_a_cpu_ours(device: torch.device, torchs: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen = []
    net[1].register_forward_hook(lambda *_: seen.append(1))
    synchronise(net, device)
    synchronise(net, device)  # once is enough
    assert [isinstance(norm, nn.SyncBatchNorm) for norm in (net[1], net[2])] == [torchs, torchs]
    assert type(net[3]) is nn.LayerNorm
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert isinstance(copy.deepcopy(net)[1], nn.SyncBatchNorm) == torchs
    if not torchs:
        net.eval()[1](torch.randn(2, 4, 3, 3))
        assert seen == [1], "hooks stay"


def test_a_norm_that_is_more_than_torchs_stays_what_it_is() -> None:
    """It takes a batch of one position, which torch's refuses."""
    net = nn.Sequential(LenientBatchNorm2d(4))
    synchronise(net, CUDA)
    assert isinstance(net[0], LenientBatchNorm2d)
    assert not isinstance(net[0], nn.SyncBatchNorm)


def test_torchs_talks_to_the_group_of_features_and_is_copied_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real group cannot be copied either, and `train.ema` copies the student."""

    class Group:
        def __reduce__(self) -> str:
            raise TypeError("cannot pickle a process group")

    monkeypatch.setattr(process_group, "_joined", process_group.ProcessGroup(0, 2, features=Group()))
    net = nn.Sequential(nn.BatchNorm2d(4))
    synchronise(net, CUDA)
    assert isinstance(net[0], nn.BatchNorm2d), "whoever looks for batch normalisation still finds it"
    assert net[0].process_group is process_group.current().features
    assert copy.deepcopy(net)[0].process_group is net[0].process_group
