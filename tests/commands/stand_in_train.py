"""In place of `python -m distillctl train`, for tests of sweeps: four epochs of nothing, with a run directory, its lock and its signals.

A rate of 3 fails, one of 5 is killed; the figure is best at 0.5. `PAUSE`: seconds of an epoch. Each epoch is a line in the file `epochs`.
"""

import os
import signal
import sys
import time
from pathlib import Path

from distillctl.distributed import heartbeat
from distillctl.rundir.directory import RunDirectory
from distillctl.rundir.lock import locked

heartbeat.start()
assert sys.argv[1:4] == ["-m", "distillctl", "train"]
said = [argument[2:].partition("=") for argument in sys.argv[4:] if "=" in argument]
options = {name: value for name, _, value in said if name != "set"}
values = dict(value.split("=", 1) for name, _, value in said if name == "set")
rate = float(values.get("optimizer.lr", 0.1))
asked = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: asked.append(number))
path = Path(options["out"])
with locked(path):
    if not (path / "run.json").exists():
        assert "--accept-change" not in sys.argv
        resolved = f"seed = {options['seed']}\n"
        RunDirectory.create(
            path,
            profile=b"",
            resolved=resolved,
            environment={"threads": os.environ.get("OMP_NUM_THREADS")},
            state={"name": "p", "digest": "d", "method": options.get("method", "kd"), "epochs": 4, "epoch": 0},
        )
    run = RunDirectory.open(path)
    print(f"WARNING: the teacher learnt {options['seed']} of the test images")
    for epoch in range(run.info()["epoch"] + 1, 5):
        time.sleep(float(os.environ.get("PAUSE", "0")))
        if rate == 3:
            print("epoch 1")
            sys.exit("error: the loss is not finite\n  --> step 7\n\nhint: lower `optimizer.lr`")
        if rate == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        with open("epochs", "a") as file:
            file.write(f"{path.name} {epoch}\n")
        figure = 1 / (1 + abs(rate - 0.5)) + int(options["seed"]) / 100
        run.append({"epoch": epoch, "phase": "main", "val": {"top1": figure}})
        run.update(epoch=epoch, best_epoch=epoch, seconds=10.0 * epoch)
        if asked:
            sys.exit(130 if asked[0] == signal.SIGINT else 143)
    run.update(state="finished", result={"split": "test", "best": {"epoch": 4, "top1": figure - 0.1}})
