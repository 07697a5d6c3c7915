"""`distillctl launch`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import options, render
from distillctl.errors import Problem, ProfileError
from distillctl.text import one_line

if TYPE_CHECKING:
    from distillctl.slurm.parameters import Resources
    from distillctl.slurm.request import Request


def launch(
    profile: options.Profile,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    seed: options.Seed = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="N,N,…", help="One job for each seed.", show_default=False)] = None,
    track: options.Track = None,
    out: options.Out = None,
    device: options.Device = "auto",
    nproc: Annotated[int, typer.Option("--nproc", metavar="N", min=1, help="Processes on the node, one a GPU.")] = 1,
    accept_change: options.AcceptChange = False,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="What the job asks for: time, partition, gpus_per_node, cpus_per_task, mem_gb, account, qos, constraint, … as submitit "
            "and sbatch call it. `setup=LINE` is a line of shell that runs before. May be given several times.",
            show_default=False,
        ),
    ] = None,
    timeouts: Annotated[
        int,
        typer.Option("--timeouts", metavar="N", min=0, help="How many times a job goes on after its time limit; preemptions do not count."),
    ] = 20,
    logs: Annotated[Path, typer.Option("--logs", metavar="DIR", help="The folder for logs, which the nodes must see.")] = Path("runs/jobs"),
    local: Annotated[bool, typer.Option("--local", help="Rehearse: run the job on this machine instead.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job; fail if it fails.")] = False,
) -> None:
    """Submit the training of PROFILE to SLURM.

    The job runs `distillctl train` on one node. Before its time limit, or when it is preempted, it saves its step, is requeued and
    continues there. Needs `pip install 'distillctl[slurm]'`.

    Examples:
        distillctl launch profiles/quickstart.toml --slurm partition=gpu --slurm time=240 --slurm gpus_per_node=1

        distillctl launch profiles/quickstart.toml --local --wait
    """
    from distillctl.plugin.registry import Registry
    from distillctl.rundir.directory import place
    from distillctl.slurm.parameters import read_resources
    from distillctl.slurm.request import Request
    from distillctl.slurm.submission import require, submit
    from distillctl.slurm.waiting import wait as wait_for

    require(local)
    resources = read_resources(slurm or ())
    if nproc > 1 and device != "cpu" and resources.gpus is not None and 0 < resources.gpus < nproc:
        raise ProfileError(f"`--nproc {nproc}` needs {nproc} GPUs, and the job asks for {resources.gpus}", where="--nproc")
    request = Request(profile, tuple(set_ or ()), method, teacher, seed, out, device, nproc, accept_change, tuple(track or ()))
    registry = Registry.load()
    ready = []
    for one in [request] if seeds is None else _for_seeds(request, seeds):
        checked = one.load(registry)
        path, run = place(checked.name, checked.digest, out=out)
        if run is not None and run.finished:
            render.line(f"this run is finished: {path}")
        else:
            ready.append((replace(one, digest=checked.digest), path))
    if ready:
        _tell(resources, device, local)
    submitted = []
    for one, path in ready:
        job = submit(one, path.name, resources, logs=logs, local=local, timeouts=timeouts)
        submitted.append(job)
        render.line(f"job        {job.id}")
        render.line(f"run        {path}")
        render.line(f"logs       {job.logs[0]}")
        render.line(f"           {job.logs[1]}")
        render.line(f"cancel     {job.cancel}")
    if not wait or not submitted:
        return
    try:
        wait_for(submitted)
    except KeyboardInterrupt:
        for job in submitted:
            typer.echo(one_line(f"job {job.id} goes on without this command; `{job.cancel}` ends it"), err=True)
        raise
    for _, path in ready:
        render.line(f"finished   {path}")


def _for_seeds(request: Request, seeds: str) -> list[Request]:
    """The same training with every seed."""
    from distillctl.profile.sweep import read_seeds

    numbers = read_seeds(seeds)
    others = (("--seed", request.seed), ("--out", request.out))
    if beside := [Problem(f"`{name}` cannot be given together with `--seeds`", name) for name, value in others if value is not None]:
        raise ProfileError(beside)
    return [replace(request, seed=number) for number in numbers]


def _tell(resources: Resources, device: str, local: bool) -> None:
    """What a user may not have meant."""
    if resources.gpus == 0 and device != "cpu":
        render.line("note       the job asks for no GPU: `--slurm gpus_per_node=N` does")
    if local and resources.parameters.keys() - {"gpus_per_node", "gpus_per_task", "gpus"}:
        render.line("note       on this machine the time limit and the number of GPUs count, and nothing else of `--slurm`")
