"""Two processes train one run, and one of them, or their launcher, is lost."""

from __future__ import annotations

import os
import random
import signal
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

PROFILE = """
seed = 6
[dataset]
name = "digits"
limit = 400
augment = "crop_flip"
[student]
name = "resnet8"
[teacher]
name = "resnet8"
checkpoint = "teacher.pt"
allow_untrained = true
[method]
name = "{method}"
[optimizer]
lr = 0.02
[train]
epochs = {epochs}
batch_size = 32
save_every = "0.2s"
"""
NPROC = ("--nproc", "2")
BOMB_PLUGIN = """
from distillctl import MethodSpec, hookimpl

@hookimpl
def register_method():
    return MethodSpec(name="bomb", kind="logits", summary="for tests", implementation="bomb_plugin.method:Bomb")
"""
BOMB = """
import os, signal, torch
from distillctl import Method

class Bomb(Method):
    \"\"\"Kills its own process in its tenth step.\"\"\"

    def __init__(self, options, setup):
        super().__init__(options, setup)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch, student, teacher, progress):
        self.calls += student["logits"].requires_grad
        if self.calls == 10 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return student["logits"].square().mean()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distillctl_cifar.models import resnet8

    made = tmp_path_factory.mktemp("lost")
    (made / "profile.toml").write_text(PROFILE.format(method="kd", epochs=8))
    torch.manual_seed(1)
    torch.save(resnet8(num_classes=10).state_dict(), made / "teacher.pt")
    return made


@pytest.fixture(scope="module")
def straight(chaos: Any, folder: Path) -> tuple[Any, float]:
    """What the two leave when nobody disturbs them, and how long it takes."""
    took = chaos.finish(folder, "straight", *NPROC)
    return chaos.outcome(folder / "straight"), took


def ranks(launcher: int) -> list[int]:
    """The processes that a launcher has now, in the order in which it started them."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == launcher and state[0] != "Z":
                found.append((int(state[19]), int(entry.name)))
    return [pid for _, pid in sorted(found)]


def both(process: Any) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(found := ranks(process.pid)) == 2 or process.poll() == 0:
            return found
        assert process.poll() is None, process.log.read_text()
        time.sleep(0.01)
    raise AssertionError("there are no two processes")


def trained(process: Any, run: Path, *, past: int = 0) -> None:
    """Waits for a checkpoint with more epochs than that."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.log.read_text()
        if (run / "metrics.jsonl").is_file() and len((run / "metrics.jsonl").read_text().splitlines()) > past:
            return
        time.sleep(0.01)
    raise AssertionError(process.log.read_text())


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_rank_restarts_the_group_which_goes_on_exactly(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], folder: Path, straight: tuple[Any, float]
) -> None:
    expected, took = straight
    rng, killed, number, wanted = random.Random(7), 0, 0, runs(1)
    while killed < wanted:
        begin, hits = time.monotonic(), min(wanted - killed, rng.randint(1, 2))
        process = chaos.train(folder, f"killed-{number}", *NPROC)
        for hit in range(hits):
            pids = both(process)
            if not process.lives(rng.uniform(0, took) * 0.7**hit):
                took = took if hit else time.monotonic() - begin  # others come and go on the machine
                break
            victim = rng.choice(pids)
            if running(victim):
                os.kill(victim, signal.SIGKILL)
                assert gone(pids, 60), "the group lives on without one of its processes"
                killed += 1
        assert process.wait() == 0, process.log.read_text()
        assert equal(expected, chaos.outcome(folder / f"killed-{number}")), process.log.read_text()
        number += 1


def test_a_silent_rank_restarts_the_group(chaos: Any, equal: Callable[[Any, Any], bool], folder: Path, straight: tuple[Any, float]) -> None:
    """It is stopped and not dead: nobody but the missing signs of life can tell."""
    process = chaos.train(folder, "silent", *NPROC, DISTILLCTL_PATIENCE="6")
    pids = both(process)
    trained(process, folder / "silent")
    begin = time.monotonic()
    os.kill(pids[1], signal.SIGSTOP)
    assert gone(pids, 60)
    assert time.monotonic() - begin < 6 + 15  # patience, a busy machine
    assert process.wait() == 0, process.log.read_text()
    assert "process 1 gave no sign of life for 6 s: all start again from the last checkpoint" in process.log.read_text()
    assert equal(straight[0], chaos.outcome(folder / "silent"))


@pytest.mark.parametrize("when", ["while they start", "in training"])
def test_without_their_launcher_they_stop_and_the_command_continues(
    chaos: Any, equal: Callable[[Any, Any], bool], folder: Path, straight: tuple[Any, float], when: str
) -> None:
    name = when.replace(" ", "-")
    process = chaos.train(folder, name, *NPROC)
    pids = both(process)
    if when == "in training":
        trained(process, folder / name)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert gone(pids, 30), "processes train on without a launcher"
    chaos.finish(folder, name, *NPROC)
    assert equal(straight[0], chaos.outcome(folder / name))


def test_a_death_at_every_start_ends_the_run_with_an_error(chaos: Any, folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "bomb_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(BOMB_PLUGIN)
    (package / "method.py").write_text(textwrap.dedent(BOMB))
    (tmp_path / "bomb_plugin-1.0.dist-info").mkdir()
    (tmp_path / "bomb_plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bomb-plugin\nVersion: 1.0\n")
    (tmp_path / "bomb_plugin-1.0.dist-info" / "entry_points.txt").write_text("[distillctl]\nbomb = bomb_plugin.plugin\n")
    (tmp_path / "profile.toml").write_text(PROFILE.format(method="bomb", epochs=8).replace('save_every = "0.2s"', 'save_every = "0.001s"'))
    (tmp_path / "teacher.pt").write_bytes((folder / "teacher.pt").read_bytes())
    process = chaos.train(tmp_path, "bombed", *NPROC, PYTHONPATH=str(tmp_path))
    assert process.wait() == 1, process.log.read_text()
    said = process.log.read_text()
    assert said.count("start again from the last checkpoint") == 5
    assert "error: process 1 was killed by SIGKILL" in said
    assert "for the 6th time" in said
    assert "hint: the last checkpoint is kept" in said
    assert torch.load(tmp_path / "bombed" / "checkpoints" / "last.pt", weights_only=True)["position"]["step"] > 0
