"""How long a step takes on this GPU, one way of sending it beside another: `speed.py OUT`.

Every case is a process that makes itself ready (builds, compiles, captures) beside the others, waits for its turn, and is then alone on
the device while it is timed. Images are noise: no step depends on what they show. Lines of JSON go to OUT/speed.jsonl as they come.

With `--together N`, the first case is run N times at once as well: what the device gives to several runs that share it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

VGG, RESNET, SMALL = ("vgg13", "vgg8"), ("resnet32x4", "resnet8x4"), ("resnet56", "resnet20")
CASES = [
    (pair, method, precision, compiled, graph)
    for pair, method, precision, compiled, graph in [
        (VGG, "kd", "bf16", False, True),
        (VGG, "kd", "bf16", False, False),
        (VGG, "kd", "bf16", True, True),
        (VGG, "kd", "fp32", False, True),
        (VGG, "crd", "bf16", False, True),
        (VGG, "crd", "bf16", False, False),
        (RESNET, "kd", "bf16", False, True),
        (RESNET, "kd", "bf16", False, False),
        (RESNET, "kd", "bf16", True, True),
        (RESNET, "kd", "bf16", True, False),
        (RESNET, "crd", "bf16", False, True),
        (RESNET, "reviewkd", "bf16", False, True),
        (SMALL, "kd", "bf16", False, True),
        (SMALL, "kd", "bf16", False, False),
    ]
]

PROFILE = """
[dataset]
name = "npz"
root = "{data}"
val_fraction = 0.0
test_fraction = 0.1
[student]
name = "cifar/{student}"
[teacher]
name = "cifar/{teacher}"
checkpoint = "{weights}"
allow_untrained = true
[[method]]
name = "{method}"
[optimizer]
lr = 0.01
[train]
epochs = 240
batch_size = 64
precision = "{precision}"
compile = "{compile}"
cuda_graph = "{graph}"
"""


def wait(file: Path, limit: float) -> None:
    """Until the file is there, or the time is over."""
    end = time.monotonic() + limit
    while not file.exists():
        if time.monotonic() > end:
            raise SystemExit(f"{file.name} did not come")
        time.sleep(0.02)


def work(folder: Path, number: int, device: str, turns: int, limit: float) -> None:
    """One case: ready, wait, time, write."""
    import numpy as np
    import torch

    from distillctl.build.data import inspected_task
    from distillctl.build.device import pick_device
    from distillctl.build.experiment import assemble
    from distillctl.build.models import TeacherModel, build_model
    from distillctl.commands.benchmark import _Runner
    from distillctl.commands.dry_run import synchronize
    from distillctl.plugin.registry import Registry
    from distillctl.profile.reading import load

    (teacher, student), method, precision, compiled, graph = CASES[number]
    data = folder / f"images{number}.npz"
    size = 55_000 if device == "cuda" else 2000
    draw = np.random.default_rng(0)
    labels = np.arange(size) % 100
    np.savez(data, images=draw.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8), labels=labels)
    path, weights = folder / f"case{number}.toml", folder / "weights.pt"
    weights.touch()
    modes: dict[str, str] = {"compile": "on" if compiled else "off", "graph": "off" if device == "cpu" or not graph else "on"}
    path.write_text(
        PROFILE.format(data=data, student=student, teacher=teacher, method=method, precision=precision, weights=weights, **modes)
    )
    registry, chosen = Registry.load(), pick_device(device)
    profile, task, _ = inspected_task(load(path, registry=registry), registry)
    assert profile.teacher is not None
    assert profile.teacher.spec is not None
    torch.manual_seed(1)
    spec = profile.teacher.spec
    model = TeacherModel(spec, build_model(task, spec, profile.teacher.options), spec.name, None)
    experiment = assemble(profile, task, model, chosen)
    started = time.perf_counter()
    torch.backends.cudnn.benchmark = True
    runner = _Runner(experiment)
    steps = (batch for epoch in count() for batch in experiment.loader.epoch(epoch))
    numbers = count()
    for _ in range(8):
        runner.step(next(steps), next(numbers))
    runner.step.check()
    ready = time.perf_counter() - started
    result: dict[str, Any] = {
        "pair": f"{teacher}→{student}", "method": method, "precision": precision, "compiled": compiled,
        "graph": runner.step.graph is not None and runner.step.graph.captured > 0, "seconds_until_ready": round(ready, 1),
    }  # fmt: skip
    (folder / f"ready{number}.{os.getpid()}").touch()
    wait(folder / f"go{number}", limit)

    def timed(amount: int) -> float:
        synchronize(chosen)
        begin = time.perf_counter()
        for _ in range(amount):
            runner.step(next(steps), next(numbers))
        synchronize(chosen)
        return (time.perf_counter() - begin) / amount

    times = [timed(turns) for _ in range(5)]
    result["ms"] = [round(t * 1e3, 4) for t in times]
    result["images_per_second"] = round(64 / sorted(times)[2])
    if not (folder / "together").exists():
        bare = sorted(runner.bare() for _ in range(15))
        result["bare_ms"] = round(bare[7] * 1e3, 4)
        if not compiled and not graph:
            result["parts_ms"] = {name: round(value * 1e3, 3) for name, value in runner.split().items()}
            result["launches"], result["bare_launches"] = launches(runner.step, steps, numbers), None
    if chosen.type == "cuda":
        result["peak_MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
        result["card"] = torch.cuda.get_device_name()
    print(json.dumps(result), flush=True)


def launches(step: Any, steps: Any, numbers: Any) -> dict[str, float]:
    """Calls that send something to the device, of one step."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            step(next(steps), next(numbers))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    names = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaMemcpyAsync", "cudaMemsetAsync"}
    return {event.key: event.count / 5 for event in profile.key_averages() if event.key in names}


def main() -> None:
    """Starts the cases, gives each its turn, and collects what they print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=float, default=150.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="one case of a few steps, to try this script")
    parser.add_argument("--together", type=int, default=0)
    parser.add_argument("--work", type=int, help="for the script itself")
    parser.add_argument("--folder", type=Path, help="for the script itself")
    given = parser.parse_args()
    turns = 2 if given.tiny else 200
    if given.work is not None:
        work(given.folder, given.work, given.device, turns, given.limit)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.limit
    chosen = [3] if given.tiny else range(len(CASES))
    with tempfile.TemporaryDirectory() as name, (given.out / "speed.jsonl").open("a") as lines:
        folder = Path(name)
        if given.together:
            (folder / "together").touch()
            chosen = [0] * given.together

        def start(number: int, place: int) -> subprocess.Popen[str]:
            command = [sys.executable, __file__, str(given.out), "--work", str(number), "--folder", name, "--device", given.device]
            command += ["--limit", str(given.limit), *(["--tiny"] if given.tiny else [])]
            errors = (given.out / f"speed{'-together' if given.together else ''}{place}.err").open("w")
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

        running = {place: (number, start(number, place)) for place, number in enumerate(chosen)}
        left = lambda: max(0.1, end - time.monotonic())  # noqa: E731
        while time.monotonic() < end:  # all are ready, or have failed
            if all(process.poll() is not None or list(folder.glob(f"ready{n}.{process.pid}")) for n, process in running.values()):
                break
            time.sleep(0.05)
        if given.together:
            (folder / "go0").touch()
        for number, process in running.values():
            (folder / f"go{number}").touch()
            try:
                text, _ = process.communicate(timeout=left())
            except subprocess.TimeoutExpired:
                process.kill()
                text, _ = process.communicate()
            line = text.strip() or json.dumps({"case": repr(CASES[number]), "failed": process.returncode})
            lines.write(line + "\n")
            lines.flush()
            print(("TOGETHER " if given.together else "") + line, flush=True)


if __name__ == "__main__":
    main()
