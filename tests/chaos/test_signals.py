"""A signal ends a run after the step that it is in, with all of it saved; a second one ends it at once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.posix]

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, getattr(signal, "SIGUSR1", signal.SIGTERM): 143}
PROFILE = """
seed = 4
[dataset]
name = "digits"
limit = 300
augment = "crop_flip"
[student]
name = "resnet8"
dropout = 0.1
[teacher]
profile = "teacher.toml"
allow_untrained = true
[method]
name = "kd"
[optimizer]
lr = 0.02
[train]
epochs = 3
batch_size = 16
save_every = "never"
ema = 0.9
[evaluate]
batch_size = 8
"""
TEACHER = """
[dataset]
name = "digits"
limit = 300
[student]
name = "resnet14"
[optimizer]
lr = 0.02
[train]
epochs = 2
batch_size = 16
save_every = "never"
[evaluate]
batch_size = 8
"""
LONG = PROFILE.replace("epochs = 3", "epochs = 2000").replace('profile = "teacher.toml"', 'name = "resnet8"\ncheckpoint = "teacher.pt"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where profiles and a teacher lie."""
    from distillctl_cifar.models import resnet8

    made = tmp_path_factory.mktemp("signals")
    (made / "profile.toml").write_text(PROFILE)
    (made / "teacher.toml").write_text(TEACHER)
    (made / "long").mkdir()
    (made / "long" / "profile.toml").write_text(LONG)
    torch.manual_seed(1)
    torch.save(resnet8(num_classes=10).state_dict(), made / "long" / "teacher.pt")
    return made


def own_folder(folder: Path, name: str) -> Path:
    """A folder with the same profiles and nothing trained: teachers lie in `runs` of the current folder."""
    made = folder / name
    made.mkdir()
    for profile in ("profile.toml", "teacher.toml"):
        (made / profile).write_text((folder / profile).read_text())
    return made


def steps_said(text: str) -> tuple[int, int] | None:
    """Epochs and steps that are saved, as the last message says."""
    found = re.search(r"stopped by SIG\w+ after (\d+) epochs?(?: and (\d+) of \d+ steps)?, which are saved", text)
    return (int(found[1]), int(found[2] or 0)) if found else None


def listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: until Python runs our first line it has none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
    return bool(caught >> (number - 1) & 1)


def one_signal(chaos: Any, equal: Callable[[Any, Any], bool], here: Path, expected: Any, took: float, rng: random.Random) -> int:
    """A run that is signalled again and again until it is done; how often."""
    count = 0
    while True:
        process = chaos.train(here, "signalled")
        while not listens(process.pid, signal.SIGUSR1):
            assert process.poll() is None
            time.sleep(0.002)
        process.lives(rng.uniform(0, took))
        number = rng.choice(list(CODES))
        before = process.log.read_text()
        sent = time.monotonic()
        process.send(number)
        code = process.wait()
        if code == 0:
            break
        said = process.log.read_text()[len(before) :]
        assert code == CODES[number], said
        assert time.monotonic() - sent < 30
        assert "Traceback" not in said, said
        count += 1
        if position := steps_said(said):
            run = here / "signalled"
            runs = [run] if run.is_dir() else []
            states = [torch.load(r / "checkpoints" / "last.pt", weights_only=True)["position"] for r in [*runs, *here.glob("runs/*")]]
            assert position in [(state["epoch"], state["step"]) for state in states], (position, states)
    assert equal(expected, chaos.outcome(here / "signalled"))
    return count


def test_signals_at_random_moments_lose_nothing(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], folder: Path
) -> None:
    """While the teacher trains, before training, in a step, in an evaluation, at the end; the run goes on to the same bytes each time.

    `save_every` is `never`: what is in the checkpoint of an unfinished epoch was saved for the signal.
    """
    wanted = runs(1)
    straight = own_folder(folder, "straight")
    took = chaos.finish(straight, "signalled")
    expected = chaos.outcome(straight / "signalled")
    counts: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        while sum(counts) < wanted:
            jobs = []
            for _ in range(min(2, wanted)):
                name = f"run-{len(counts) + len(jobs)}"
                jobs.append(pool.submit(one_signal, chaos, equal, own_folder(folder, name), expected, took, random.Random(name)))
            counts += [job.result() for job in jobs]


def training(process: Any, run: Path) -> None:
    """Waits until a run has finished an epoch."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "run.json").is_file() and json.loads((run / "run.json").read_text())["epoch"] > 0:
            return
        time.sleep(0.01)
    raise AssertionError(process.log.read_text())


@pytest.mark.parametrize("number", CODES, ids=lambda n: n.name)
def test_the_step_is_finished_and_saved(chaos: Any, folder: Path, number: signal.Signals) -> None:
    process = chaos.train(folder / "long", f"once-{number.name}")
    run = folder / "long" / f"once-{number.name}"
    training(process, run)
    process.send(number)
    assert process.wait() == CODES[number]
    said = process.log.read_text()
    position = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["position"]
    assert steps_said(said) == (position["epoch"], position["step"])
    assert f"stopped by {number.name} after" in said
    assert "hint: the same command continues" in said
    assert json.loads((run / "run.json").read_text())["state"] == "running"


@pytest.mark.parametrize("number", CODES, ids=lambda n: n.name)
def test_a_second_signal_ends_at_once(chaos: Any, folder: Path, number: signal.Signals) -> None:
    """The first is noted while the process stands still; both are there when it goes on."""
    process = chaos.train(folder / "long", f"twice-{number.name}")
    run = folder / "long" / f"twice-{number.name}"
    training(process, run)
    other = signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT
    process.send(signal.SIGSTOP)
    process.send(other)
    process.send(number)
    process.send(signal.SIGCONT)
    assert process.wait(20) in {CODES[number], CODES[other]}
    assert "stopped by" not in process.log.read_text()
    torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def test_signals_to_the_launcher_of_two_processes(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], folder: Path
) -> None:
    """They reach both processes, which end after the same step."""
    here = folder / "two"
    here.mkdir()
    (here / "profile.toml").write_text(LONG.replace("epochs = 2000", "epochs = 6").replace("ema = 0.9", ""))
    torch.save(torch.load(folder / "long" / "teacher.pt", weights_only=True), here / "teacher.pt")
    took = chaos.finish(here, "straight", "--nproc", "2")
    rng, wanted, count = random.Random(2), max(1, runs(10) // 10), 0
    while count < wanted:
        number = rng.choice(list(CODES))
        process = chaos.train(here, f"stopped-{count}", "--nproc", "2")
        while not listens(process.pid, number):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1) * took)
        process.send(number)
        code = process.wait()
        if code:
            assert code == CODES[number], process.log.read_text()
            assert "Traceback" not in process.log.read_text()
        chaos.finish(here, f"stopped-{count}", "--nproc", "2")
        assert equal(chaos.outcome(here / "straight"), chaos.outcome(here / f"stopped-{count}"))
        count += 1


def test_a_signal_before_anything_began(chaos: Any, folder: Path) -> None:
    """As soon as a new interpreter listens; nothing is left behind."""
    for number, code in CODES.items():
        process = chaos.train(folder / "long", f"early-{number.name}", forked=False)
        while not listens(process.pid, signal.SIGUSR1):
            assert process.poll() is None
            time.sleep(0.001)
        process.send(number)
        assert process.wait() == code, process.log.read_text()
        assert not os.path.lexists(folder / "long" / f"early-{number.name}")
