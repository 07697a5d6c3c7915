"""A run that is killed at any moment, any number of times, ends as if nothing had been."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.testing.trees import write_tree

pytestmark = pytest.mark.slow

DIGITS = 'name = "digits"\nlimit = {limit}\naugment = "crop_flip"'
FILES = 'name = "imagefolder"\nroot = "images"\nimage_size = 16\nresize = 18\neval_resize = 16\naugment = "crop_flip"\nval_fraction = 0.2'
PROFILE = """
seed = {seed}
[dataset]
{dataset}
[student]
name = "{student}"
{dropout}
[[teacher]]
{teacher}
allow_untrained = true
{more}
{method}
[optimizer]
name = "{optimizer}"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = {epochs}
batch_size = {batch}
save_every = "{save_every}"
{train}
"""
TEACHER = """
[dataset]
name = "digits"
limit = 150
[student]
name = "resnet8"
[optimizer]
lr = 0.02
[train]
epochs = 3
save_every = "0.1s"
"""


@dataclass(frozen=True)
class Case:
    """One kind of run, of one to three seconds."""

    method: str
    epochs: int = 4
    dataset: str = DIGITS.format(limit=250)
    student: str = "resnet8"
    dropout: str = ""
    teacher: str = 'name = "resnet8"\ncheckpoint = "teacher-10.pt"'
    more: str = ""  # other tables
    optimizer: str = "sgd"
    batch: int = 32
    save_every: str = "0.2s"
    train: str = ""
    resumed: tuple[str, ...] = ()  # other `--set` at every start: no part of a run

    def text(self, seed: int) -> str:
        return PROFILE.format(seed=seed, **vars(self))


def method(name: str, **options: float | list[float]) -> str:
    return f'[[method]]\nname = "{name}"\n' + "".join(f"{key} = {value}\n" for key, value in options.items())


CASES = {
    "kd, saved after every step": Case(method("kd"), save_every="0.001s", train="ema = 0.9"),
    "mgd on files, with 0, 1 or 2 workers": Case(
        method("mgd"),
        dataset=FILES,
        teacher='name = "resnet8"\ncheckpoint = "teacher-3.pt"',
        train="workers = 1",
        resumed=("train.workers=0", "train.workers=2", "train.workers=1"),
    ),
    "rdrop with dropout and an average": Case(
        method("rdrop") + method("kd", task_weight=1.0), dropout="dropout = 0.2", train="ema = 0.95\nkeep_every = 2"
    ),
    "ft in a phase, then kd": Case(method("ft", init_epochs=3) + method("kd", task_weight=1.0), epochs=3, train="accumulate = 2"),
    "dot with crd": Case(method("crd", negatives=32), optimizer="dot"),
    "a teacher that is trained first": Case(method("kd"), teacher='profile = "teacher.toml"', epochs=2),
    "two teachers, one of them trained first": Case(
        method("kd", teacher_weights=[0.25, 0.75]) + method("ft", init_epochs=2, task_weight=1.0),
        teacher='profile = "teacher.toml"',
        more='[[teacher]]\nname = "resnet8"\ncheckpoint = "teacher-10.pt"\nallow_untrained = true',
        epochs=2,
    ),
    "large checkpoints all the time": Case(
        method("kd"), student="resnet8x4", epochs=3, save_every="0.001s", dataset=DIGITS.format(limit=100)
    ),
    "kd with every other evaluation": Case(
        method("kd"),
        epochs=5,
        train="accumulate = 2\nema = 0.9\n[evaluate]\nevery = 2\nbatch_size = 4",
        resumed=("train.save_every=5min", "train.save_every=0.05s"),
    ),
}


def prepare(folder: Path, case: Case, seed: int) -> None:
    """A folder from which the case can be trained."""
    from distillctl_cifar.models import resnet8

    folder.mkdir()
    for classes in (3, 10):
        torch.manual_seed(1)
        torch.save(resnet8(num_classes=classes).state_dict(), folder / f"teacher-{classes}.pt")
    if case.dataset is FILES:
        write_tree(folder / "images", {"ape": 40, "bee": 41, "cow": 40})
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "profile.toml").write_text(case.text(seed))


def survive(chaos: Any, folder: Path, case: Case, out: str, took: float, wanted: int, rng: random.Random) -> tuple[int, float]:
    """Kills a run up to so many times, each at a random moment, and lets it finish.

    took: seconds that a whole run takes. How often it was killed, and what a whole run takes now: others come and go on the machine.
    """
    kills = 0

    def more() -> list[str]:
        return ["--set", rng.choice(case.resumed)] if case.resumed else []

    while kills < wanted:
        begin = time.monotonic()
        process = chaos.train(folder, out, *more())
        if not process.lives(rng.uniform(0, took) * 0.7**kills) and kills == 0:
            took = time.monotonic() - begin
        process.send(signal.SIGKILL)
        code = process.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.log.read_text()[-3000:]
        kills += 1
    seconds = chaos.finish(folder, out, *more())
    return kills, max(took, seconds) if kills else took


def one_case(chaos: Any, equal: Callable[[Any, Any], bool], folder: Path, name: str, kills: int, seed: int) -> int:
    """So many kills, spread over runs of the case; all must end alike."""
    case, rng, done, number = CASES[name], random.Random(seed), 0, 0
    prepare(folder, case, seed)
    took = chaos.finish(folder, "straight")
    expected = chaos.outcome(folder / "straight")
    while done < kills:
        out = f"killed-{number}"
        survived, took = survive(chaos, folder, case, out, took, min(kills - done, rng.randint(1, 4)), rng)
        done += survived
        assert equal(expected, chaos.outcome(folder / out)), f"{name}, {out}"
        number += 1
    return done


def test_runs_killed_at_random_moments_end_with_the_same_bytes(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], tmp_path: Path
) -> None:
    """Several kills in one run, runs of every kind, two at a time."""
    kills = runs(4)
    names = list(CASES)[: max(2, min(len(CASES), kills // 2))]
    shares = [kills // len(names) + (n < kills % len(names)) for n in range(len(names))]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(one_case, chaos, equal, tmp_path / str(n), name, share, n)
            for n, (name, share) in enumerate(zip(names, shares, strict=True))
        ]
        assert sum(job.result() for job in jobs) == kills


def test_a_new_interpreter_that_is_killed_while_it_starts_leaves_nothing_in_the_way(
    chaos: Any, equal: Callable[[Any, Any], bool], runs: Callable[[int], int], tmp_path: Path
) -> None:
    """Imports, set-up and the making of the run directory; what is killed here is not forked."""
    rng = random.Random(5)
    prepare(tmp_path / "runs", CASES["kd, saved after every step"], 3)
    took = 6 + chaos.finish(tmp_path / "runs", "straight")
    for _ in range(max(1, runs(10) // 10)):
        process = chaos.train(tmp_path / "runs", "killed", forked=False)
        time.sleep(rng.uniform(0, took))
        process.send(signal.SIGKILL)
        process.wait()
    chaos.finish(tmp_path / "runs", "killed")
    assert equal(chaos.outcome(tmp_path / "runs" / "straight"), chaos.outcome(tmp_path / "runs" / "killed"))
