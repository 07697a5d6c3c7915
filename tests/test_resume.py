"""A run killed in the middle ends with the same weights as one that was not, for every method and bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distillctl.testing.killed_runs import finish, kill_at, start

PROFILE = """
seed = 3
[dataset]
name = "digits"
limit = 300
augment = "crop_flip"
[student]
name = "resnet8"
dropout = 0.1
[teacher]
name = "resnet8"
checkpoint = "teacher.pt"
allow_untrained = true
{method}
[optimizer]
name = "{optimizer}"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = {epochs}
ema = 0.9
"""
METHODS = {
    "kd": '[method]\nname = "kd"\n',
    "dkd": '[method]\nname = "dkd"\nwarmup_epochs = 15\n',
    "ctkd": '[method]\nname = "ctkd"\n',
    "mgd": '[method]\nname = "mgd"\nmask_ratio = 0.5\n',
    "crd": '[method]\nname = "crd"\nnegatives = 64\n',
    # Killed in the middle of a phase, and in the second of two.
    "ft": '[[method]]\nname = "ft"\ninit_epochs = 14\n[[method]]\nname = "kd"\ntask_weight = 1.0\n',
    "fsp and ab": '[[method]]\nname = "fsp"\ninit_epochs = 6\n[[method]]\nname = "ab"\ninit_epochs = 8\n',
    "simkd with dot": '[method]\nname = "simkd"\n',
    "simkd in int8": '[method]\nname = "simkd"\n',
    "rdrop with dot": '[[method]]\nname = "rdrop"\n[[method]]\nname = "ofd"\n',
}
PHASES = {"ft": 14, "fsp and ab": 14}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_twenty_epochs_straight_equal_eleven_a_kill_and_the_rest(method: str, tmp_path: Path) -> None:
    from distillctl_cifar.models import resnet8

    torch.manual_seed(1)
    torch.save(resnet8(num_classes=10).state_dict(), tmp_path / "teacher.pt")
    optimizer = "dot" if method.endswith("dot") else "sgd"
    profile = PROFILE.format(method=METHODS[method], optimizer=optimizer, epochs=20 - PHASES.get(method, 0))
    if method.endswith("int8"):
        profile += 'quantize = "int8"\n'
    (tmp_path / "profile.toml").write_text(profile)
    straight = start(tmp_path, "straight")  # the two do not know of each other, and side by side they take half the time
    done = kill_at(start(tmp_path, "killed"), tmp_path / "killed", 11)
    assert 11 <= done < 20
    finish(start(tmp_path, "killed"))
    finish(straight)
    a, b = (torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True) for name in ("straight", "killed"))
    assert a["position"]["epoch"] == b["position"]["epoch"] == 20
    for part in ("student", "methods"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part]), part
    assert (tmp_path / "straight/student.safetensors").read_bytes() == (tmp_path / "killed/student.safetensors").read_bytes()

    def lines(name: str) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.endswith(("seconds", "per_second"))} for row in rows]

    assert lines("straight") == lines("killed")
