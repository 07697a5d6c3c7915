"""The machine around a run: memory that runs out, process groups, names of devices, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from distillctl.build.device import pick_device
from distillctl.errors import MachineError

pytestmark = pytest.mark.timeout(150)


@contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """Within it, this process gets 64 MiB more than it has."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.cuda_alone
@pytest.mark.parametrize("graph", ["off", "auto"])
def test_memory_that_runs_out_is_told_in_words(bench: Any, tell: Any, graph: str) -> None:
    """What took it, and what to lower; with memory again, the next step works."""
    with bench.made("kd", cuda_graph=graph) as experiment:
        step = bench.steps(experiment)
        small = next(iter(experiment.loader.epoch(0)))
        large = type(small)(*(torch.cat([part] * 400) for part in (small.images, small.labels, small.index)))
        with little_memory(bench.device), pytest.raises(MachineError) as caught:
            step(large, 4)
        tell("message", str(caught.value).replace("\n", " "))
        message = str(caught.value)
        for words in ("memory ran out in a training step on cuda", "the student", "the teacher", "`train.accumulate`", "asking for"):
            assert words in message
        assert caught.value.exit_code == 3
        step.learner.forget_gradients()
        step(small, 5)
        step.check()
        tell("peak, MiB", torch.cuda.max_memory_allocated() / 2**20)


GROUP = """
import sys
import torch, torch.distributed as dist
from torch import nn
from distillctl.distributed.process_group import ProcessGroup
backend, kind, place = sys.argv[1:]
device = torch.device(kind)
dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
control, data = dist.new_group(backend="gloo"), dist.new_group(backend=backend)
group = ProcessGroup(0, 1, control, data, data)
rows = torch.arange(12.0, device=device).view(4, 3)
assert torch.equal(group.all_gather_rows(rows, 4), rows)
assert torch.equal(group.all_reduce(rows.clone()), rows)
assert group.all_reduce_max(3, 5) == [3, 5]
torch.manual_seed(0)
plain = nn.Linear(3, 2).to(device)
module = nn.parallel.DistributedDataParallel(plain, process_group=data, find_unused_parameters=True)
module(rows).square().sum().backward()
mine = [p.grad.clone() for p in plain.parameters()]
plain.zero_grad()
plain(rows).square().sum().backward()
for one, other in zip(mine, plain.parameters()):
    torch.testing.assert_close(one, other.grad)
dist.broadcast(rows, src=0, group=data)
dist.destroy_process_group()
print("done", flush=True)
"""


def test_a_group_of_nccl_beside_one_of_gloo(device: torch.device, tmp_path: Path) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    command = [sys.executable, "-W", "ignore", "-c", GROUP, backend, device.type, str(tmp_path / "meeting")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "done" in done.stdout


def test_cuda_is_its_first_device(bench: Any) -> None:
    """By either name a step is the same, to the last bit."""
    names = ("cpu", "cpu") if bench.device.type == "cpu" else ("cuda", "cuda:0")
    states = []
    for name in names:
        with bench.made("crd", device=pick_device(name), deterministic=True) as experiment:
            torch.use_deterministic_algorithms(True)
            try:
                bench.steps(experiment)
            finally:
                torch.use_deterministic_algorithms(False)
            states.append({key: value.cpu() for key, value in experiment.objective.state_dict().items()})
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(MachineError) as caught:
        pick_device("cuda:9")
    assert caught.value.exit_code == 3


TEACHER = """
[dataset]
name = "digits"
limit = 400
[student]
name = "resnet14"
[method]
name = "none"
[optimizer]
name = "sgd"
lr = 0.02
[train]
epochs = 3
"""
STUDENT = """
[dataset]
name = "digits"
limit = 400
val_fraction = 0.2
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
[method]
name = "{method}"
[optimizer]
name = "sgd"
lr = 0.02
[schedule]
name = "cosine"
[train]
epochs = {epochs}
precision = "{precision}"
deterministic = {deterministic}
ema = 0.9
"""


class Shell:
    """The command line in a folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}

    def start(self, *words: str, device: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "distillctl", *words, "--device", device or self.device.type]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, code: int = 0, device: str = "") -> str:
        process = self.start(*words, device=device)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out[-1500:]}\n{errors[-3000:]}"
        assert "Traceback" not in errors
        return out + errors


def test_a_device_that_is_not_there_on_the_command_line(tmp_path: Path, device: torch.device) -> None:
    (tmp_path / "p.toml").write_text(TEACHER)
    said = Shell(tmp_path, device).run("train", "p.toml", device="cuda:9", code=3)
    assert "cuda:9" in said or device.type == "cpu"


@pytest.mark.parametrize(
    ("method", "precision", "deterministic"), [("kd", "fp32", True), ("kd", "bf16", False), ("crd", "bf16", False)], ids=str
)
def test_a_run_is_stopped_continued_evaluated_and_measured(
    tmp_path: Path, device: torch.device, tell: Any, method: str, precision: str, deterministic: bool
) -> None:
    epochs = 6 if device.type == "cpu" else 60
    (tmp_path / "teacher.toml").write_text(TEACHER)
    text = STUDENT.format(method=method, precision=precision, deterministic=str(deterministic).lower(), epochs=epochs)
    (tmp_path / "student.toml").write_text(text)
    shell, run = Shell(tmp_path, device), tmp_path / "run"
    process = shell.start("train", "student.toml", "--out", "run")
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None and done_of(run) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 143, f"{process.returncode}\n{out[-1500:]}\n{errors[-3000:]}"
    done = done_of(run)
    assert 2 <= done < epochs
    started = time.monotonic()
    shell.run("train", "student.toml", "--out", "run")
    tell(f"{method}, {precision}: s for {epochs - done} epochs with the command's start", time.monotonic() - started)
    info = json.loads((run / "run.json").read_text())
    assert (info["state"], info["epoch"]) == ("finished", epochs)
    assert info["result"]["best"]["top1"] > (0.12 if device.type == "cpu" else 0.5)
    report = json.loads(shell.run("eval", "run", "--json").partition("{")[2].join(["{", ""]))
    assert report["top1"] == pytest.approx(info["result"]["best"]["top1"])
    tell(f"{method}, {precision}: top-1", float(report["top1"]))
    measured = shell.run("bench", "student.toml", "--steps", "3", "--warmup", "1", "--json")
    for one in json.loads(measured[measured.index("[") : measured.rindex("]") + 1]):
        tell(f"{method}, {precision}: {one['mode']}: ms a step, ratio", f"{1000 * one['step']:.3f}, {one['ratio']:.2f}")
    if deterministic:
        shell.run("train", "student.toml", "--out", "straight")
        assert (tmp_path / "straight/student.safetensors").read_bytes() == (run / "student.safetensors").read_bytes()


def done_of(run: Path) -> int:
    """Epochs that are finished."""
    try:
        return int(json.loads((run / "run.json").read_text())["epoch"])
    except (FileNotFoundError, ValueError):
        return 0
