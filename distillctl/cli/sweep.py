"""`distillctl sweep`, and `train --seeds`, which is a sweep of seeds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl.cli import options, render
from distillctl.errors import Problem, ProfileError
from distillctl.text import counted, duration

if TYPE_CHECKING:
    from distillctl.commands.sweep import Cell, Plan, Row
    from distillctl.commands.sweep_runner import Event
    from distillctl.plugin.registry import Registry
    from distillctl.slurm.request import Request


def sweep(
    profile: options.Profile,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=VALUE,…",
            help="Values that a key has in turn; method=kd,dkd names methods. Several keys: all combinations.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,N,…", help="Seeds for every combination; else the profile's.", show_default=False)
    ] = None,
    control: Annotated[
        bool | None, typer.Option("--control/--no-control", help="Train on labels alone, too, with every seed.", show_default=False)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="How many runs are trained at once; else 1.", show_default=False)
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            "--random",
            metavar="N",
            min=1,
            help="Draw N combinations; a range such as lr=0.01..1 log can stand for a list.",
            show_default=False,
        ),
    ] = None,
    optimize: Annotated[
        str | None,
        typer.Option(
            "--optimize", metavar="METRIC", help="Let Optuna search for the best METRIC on the validation split.", show_default=False
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="With --optimize: combinations that are tried.", show_default=False)
    ] = None,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder of all runs, instead of one below runs/.")] = None,
    device: options.Device = "auto",
    nproc: Annotated[int, typer.Option("--nproc", metavar="N", min=1, help="Processes for each run.")] = 1,
    track: options.Track = None,
    accept_change: options.AcceptChange = False,
    allow_code: options.AllowCode = False,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="Submit the missing runs as an array of SLURM, with what each asks for, as `launch` takes it; --jobs bounds how many run "
            "at once.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and list the runs, and tell about how long they take.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the table at the end.")] = False,
    json: options.Json = False,
) -> None:
    """Train PROFILE once for each combination of values and each seed.

    The runs lie in one folder, with a table of them in sweep.json. The same command again does what is missing, and adds what is new. What
    a table [sweep] of the profile says, options replace.

    Examples:
        distillctl sweep profiles/quickstart.toml --grid method=kd,dkd --seeds 0,1,2 --control

        distillctl sweep profiles/quickstart.toml --grid 'method.temperature=1..16 log' --optimize top1 --trials 20
    """
    from distillctl.plugin.registry import Registry
    from distillctl.profile.reading import load
    from distillctl.profile.sweep import settle
    from distillctl.slurm.request import Request

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    table = load(profile, registry=registry, overrides=set_ or (), method=method, teacher=teacher).sweep
    wanted = settle(table, grid=grid or (), seeds=seeds, control=control, jobs=jobs, random=random, optimize=optimize, trials=trials)
    if not (wanted.grid or wanted.seeds or wanted.control):
        hint = "for example `--grid method.temperature=1,2,4 --seeds 0,1,2`, or a table [sweep] in the profile"
        raise ProfileError("nothing says what the runs differ in", where="--grid, --seeds", hint=hint)
    request = Request(profile, tuple(set_ or ()), method, teacher, None, None, device, nproc, accept_change, tuple(track or ()))
    if slurm:
        _submit(request, wanted, registry, out, slurm, dry_run=dry_run, allow_code=allow_code)
        return
    _run(request, wanted, registry, out, allow_code=allow_code, dry_run=dry_run, quiet=quiet, json=json)


def train_seeds(
    request: Request,
    seeds: str,
    registry: Registry,
    out: Path | None,
    alone: Mapping[str, bool],
    *,
    allow_code: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """A run for each seed. alone: options of `train` that are for one run, and whether they are given."""
    from distillctl.profile.sweep import Sweep, read_seeds

    if beside := [Problem(f"`{name}` cannot be given together with `--seeds`", name) for name, given in alone.items() if given]:
        raise ProfileError(beside)
    _run(request, Sweep({}, read_seeds(seeds)), registry, out, allow_code=allow_code, dry_run=dry_run, quiet=quiet, json=False)


def _run(
    request: Request, wanted: Any, registry: Registry, out: Path | None, *, allow_code: bool, dry_run: bool, quiet: bool, json: bool
) -> None:
    from distillctl.commands.sweep import plan
    from distillctl.commands.sweep_runner import Listed, Runner

    search = bool(wanted.optimize)
    if search:
        from distillctl.commands import sweep_search

        sweep_search.require()
    made = plan(request, wanted, registry, out)
    if search:
        with render.loading():
            sweep_search.check_metric(made)
    if dry_run:
        _print_plan(made)
        return
    talks = not (quiet or json)
    if talks:
        print_head(made)
    source = sweep_search.Search(made) if search else Listed(made.cells)
    runner = Runner(made, source, teller(made) if talks else _say_nothing, ["--allow-code"] if allow_code else [])
    try:
        runner.run()
    finally:
        _print_table(made, runner.cells, json=json)


def print_head(made: Plan) -> None:
    """Where the runs are, and what is to be said of them."""
    there = sum(cell.finished for cell in made.cells)
    render.words(f"sweep      {made.folder}: {counted(made.total, 'run')}" + (f", {there} of them finished" if there else ""), 11)
    for note in made.notes:
        render.words(f"note       {note}", 11)


def _say_nothing(event: Event) -> None:
    pass


def teller(made: Plan) -> Callable[[Event], None]:
    """Prints a line at the beginning and at the end of each run."""

    def tell(event: Event) -> None:
        text = event.cell.title
        if event.kind == "finished" and (record := event.cell.record) is not None:
            figures = {split: record.figures(split).get(record.metric) for split in ("val", "test")}
            told = [f"{split} {record.show(record.metric, value)}" for split, value in figures.items() if value is not None]
            text = f"{text}: {', '.join([*told, duration(record.seconds)])}"
        elif event.kind in ("failed", "warning"):
            text = f"{text}: {event.text}"
        elif event.kind == "elsewhere":
            text = f"{text}: another process trains it"
        count = f" [{event.done}/{made.total}]" if event.kind in ("finished", "failed") else ""
        render.words(f"{event.kind:<10} {text}{count}", 11)

    return tell


def _print_table(made: Plan, cells: list[Cell], *, json: bool) -> None:
    """What came out: a line for each combination. Of a search the best comes first."""
    from distillctl.commands.sweep import FILE, rows

    known = {cell.path: cell for cell in [*made.cells, *cells]}
    found = rows(known.values(), made.sweep.optimize)
    if json:
        render.as_json({"folder": str(made.folder), "rows": [_as_data(row) for row in found]})
        return
    words = next((row.records[0].names.get(row.metric, row.metric) for row in found if row.records), "")
    table = [[row.name, f"{len(row.records)}/{len(row.cells)}", row.show("val"), row.show("test")] for row in found]
    render.table(["run", "seeds", f"val {words}", f"test {words}"], table)
    render.words(f"file       {made.folder / FILE}", 11)


def _as_data(row: Row) -> dict[str, Any]:
    finished = {record.path for record in row.records}
    return {
        "name": row.name,
        "values": dict(row.cells[0].values),
        "finished": [cell.seed for cell in row.cells if cell.path in finished],
        "missing": [cell.seed for cell in row.cells if cell.path not in finished],
        "metric": row.metric,
        "val": row.mean("val"),
        "test": row.mean("test"),
        "runs": [str(cell.path) for cell in row.cells],
    }


def _print_plan(made: Plan) -> None:
    from distillctl.commands.sweep import Book, seconds_left, state_of

    print_head(made)
    book = Book(made)
    table = [[cell.name, str(cell.seed), state_of(cell, book), cell.path.name] for cell in made.cells]
    render.table(["run", "seed", "state", "folder"], table, less=["folder"])
    if made.sweep.optimize:
        keys = ", ".join(made.sweep.grid)
        render.words(f"search     {counted(made.sweep.trials, 'combination')} of {keys}, each proposed after those before it", 11)
    left = seconds_left(made)
    known = "not known before the first run is finished" if left is None else f"about {duration(left)} for what is missing"
    render.words(f"time       {known}", 11)


def _submit(
    request: Request, wanted: Any, registry: Registry, out: Path | None, slurm: list[str], *, dry_run: bool, allow_code: bool
) -> None:
    from distillctl.commands.sweep import plan, submit
    from distillctl.slurm.parameters import read_resources
    from distillctl.slurm.submission import require, submit_array
    from distillctl.slurm.waiting import queued

    if wanted.optimize:
        raise ProfileError("`--slurm` does not work with `--optimize`: a search waits for what it has begun", where="--slurm")
    if allow_code:
        raise ProfileError("`--slurm` does not work with `--allow-code`: jobs run no files of one's own", where="--slurm")
    resources = read_resources(slurm)
    made = plan(request, wanted, registry, out)
    if dry_run:
        _print_plan(made)
        return
    require(local=False)
    print_head(made)

    def send(requests: Any) -> list[str]:
        at_once = wanted.jobs if wanted.jobs > 1 else None
        return [job.id for job in submit_array(requests, made.folder.name, resources, at_once=at_once)]

    jobs = []
    for cell, job in submit(made, send, queued):
        render.words(f"job {job:<6} {cell.title}", 11)
        jobs.append(job.partition("_")[0])
    if jobs:
        render.line(f"cancel     scancel {jobs[0]}")
    else:
        render.line("submitted  nothing: every run is finished or on its way")
