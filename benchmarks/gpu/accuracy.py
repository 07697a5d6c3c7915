"""Trains a teacher of the CRD benchmark and its students on a GPU, within a time limit: `accuracy.py OUT --data DIR --limit SECONDS`.

The profiles are the shipped ones with the overrides that are given here, and that the table names. The student without a teacher trains
beside the teacher; the others follow, so many at once. At the limit all are stopped, saved, and reported as cut.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Runs:
    """Runs that train at the same time, each a process."""

    def __init__(self, out: Path, runs: Path, device: str, overrides: list[str]) -> None:
        self._out, self._runs, self._device, self._overrides = out, runs, device, overrides
        self.going: dict[str, subprocess.Popen[bytes]] = {}
        self.seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}

    def start(self, name: str, profile: Path, *more: str) -> None:
        """Begins a run."""
        command = [
            sys.executable,
            "-m",
            "distillctl",
            "train",
            str(profile),
            "--out",
            str(self._runs / name),
            "--device",
            self._device,
            "-q",
        ]
        for override in self._overrides:
            command += ["--set", override]
        log = (self._out / f"{name}.log").open("wb")
        self._began[name] = time.monotonic()
        self.going[name] = subprocess.Popen([*command, *more], stdout=log, stderr=subprocess.STDOUT)

    def finished(self) -> list[str]:
        """Those that ended since the last time."""
        ended = [name for name, process in self.going.items() if process.poll() is not None]
        for name in ended:
            self.seconds[name] = round(time.monotonic() - self._began[name], 1)
            print(f"{name}: exit {self.going.pop(name).returncode} after {self.seconds[name]} s", flush=True)
        return ended

    def stop(self, patience: float) -> None:
        """Asks all to save and end."""
        for process in self.going.values():
            process.send_signal(signal.SIGTERM)
        end = time.monotonic() + patience
        while self.going and time.monotonic() < end:
            self.finished()
            time.sleep(0.1)
        for process in self.going.values():
            process.kill()


def main() -> None:
    """Starts what can start, until all is done or the time is over; then writes OUT/accuracy.json and OUT/records.tar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--pair", default="vgg13_vgg8")
    parser.add_argument("--methods", default="none,kd,dkd,crd")
    parser.add_argument("--parallel", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    end = time.monotonic() + given.limit
    given.out.mkdir(parents=True, exist_ok=True)
    folder = ROOT / "profiles" / "cifar100"
    pair, teacher = folder / f"{given.pair}.toml", folder / "teachers" / f"{given.pair.split('_')[0]}.toml"
    runs = Runs(given.out, given.runs, given.device, [f"dataset.root={given.data}", *given.overrides])
    waiting = given.methods.split(",")
    taught = (given.runs / "teacher" / "run.json").is_file() and json.loads((given.runs / "teacher" / "run.json").read_text())[
        "state"
    ] == "finished"
    if not taught:
        runs.start("teacher", teacher)
    try:
        while (waiting or runs.going) and time.monotonic() < end:
            taught |= "teacher" in runs.finished()
            if "teacher" in runs.seconds and not (given.runs / "teacher" / "run.json").is_file():
                break
            for method in list(waiting):
                if len(runs.going) < given.parallel and (taught or method == "none"):
                    waiting.remove(method)
                    more = ("--method", "none") if method == "none" else ("--method", method, "--teacher", str(given.runs / "teacher"))
                    runs.start(method, pair, *more)
            time.sleep(0.2)
    finally:
        runs.stop(15.0)
    report(given, runs)


def report(given: argparse.Namespace, runs: Runs) -> None:
    """What the runs say of themselves."""
    table = {}
    with tarfile.open(given.out / "records.tar.gz", "w:gz") as tar:
        for path in sorted(given.runs.glob("*/run.json")):
            said = json.loads(path.read_text())
            table[path.parent.name] = {"seconds_with_start": runs.seconds.get(path.parent.name), **said}
            for file in sorted(path.parent.iterdir()):
                if file.suffix in (".json", ".jsonl", ".toml") and file.stat().st_size < 1 << 20:
                    tar.add(file, f"{path.parent.name}/{file.name}")
    (given.out / "accuracy.json").write_text(json.dumps({"overrides": given.overrides, "runs": table}, indent=1))
    for name, said in table.items():
        kept = {key: said[key] for key in ("state", "epoch", "seconds", "images_per_second", "test", "result", "best_epoch") if key in said}
        print(name, json.dumps(kept), flush=True)
    print("environment", os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "no MPS"), flush=True)


if __name__ == "__main__":
    main()
