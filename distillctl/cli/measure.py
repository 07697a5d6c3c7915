"""`distillctl measure`."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl.cli import completion, options, render
from distillctl.errors import MachineError, ProfileError
from distillctl.files import write_text
from distillctl.text import counted, csv_cell, magnitude, milliseconds, one_line

if TYPE_CHECKING:
    from distillctl.commands.budget import Fitting
    from distillctl.commands.measure import Cost, Failure, Settings, Top1

_BATCHES = (1, 32)
_LONGEST = 10.0
"""Seconds of a forward beyond which a batch is not timed that nobody asked for."""


def measure(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|RUN...",
            help="Models by name, run directories, or patterns such as 'timm/mobilenetv3*'.",
            show_default=False,
            autocompletion=completion.models_and_runs,
        ),
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", metavar="N", min=0, help="Pixels; each model's own without it.")] = 0,
    num_classes: Annotated[
        int, typer.Option("--num-classes", metavar="N", min=0, help="Classes of models by name; without it those of `list-models`.")
    ] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="model.KEY=VALUE", help="An option of the models by name, such as model.stages=2.", show_default=False
        ),
    ] = None,
    device: options.Device = "auto",
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads on a CPU; 0 keeps torch's own choice.")] = 0,
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="[torch|onnx]", help="What computes; onnx needs distillctl[onnx].")
    ] = "torch",
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", metavar="N", min=1, help="A batch size to time; several times for several.", show_default="1, 32"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", metavar="LIMIT", help="List what fits: 10ms, 5M (parameters), 300MMACs, 20MB; all of several.", show_default=False
        ),
    ] = None,
    among: Annotated[
        list[str] | None, typer.Option("--from", metavar="PATTERN", help="With --budget: among these models or runs.", show_default=False)
    ] = None,
    min_top1: Annotated[
        float,
        typer.Option("--min-top1", metavar="SHARE", min=0, max=1, help="With --budget: published or measured top-1 of at least this."),
    ] = 0.0,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="With --budget: the N largest that fit.")] = 0,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a file too.")] = None,
    allow_code: options.AllowCode = False,
    as_json: options.Json = False,
) -> int:
    """Measure what models cost: parameters, multiply-accumulates (MACs), size on disk, time of a forward, memory.

    MACs are those of convolutions, matrix products and attention. Models by name have fresh weights; of a run it is its student.

    Examples:
        distillctl measure resnet8 torchvision/resnet18 'timm/ghostnet_*' runs/NAME

        distillctl measure --budget 10ms --budget 5M --from 'torchvision/*' --min-top1 0.7
    """
    _check(models or [], budget or [], {"--from": among, "--min-top1": min_top1, "--limit": limit}, runtime, csv_file)
    from distillctl.commands.subjects import subjects
    from distillctl.plugin.registry import Registry
    from distillctl.profile.document import parse_edit

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    edits = [parse_edit(text) for text in set_ or ()]
    if wrong := next((edit for edit in edits if len(edit.parts) != 2 or edit.parts[0] != "model"), None):
        raise ProfileError(f"`{'.'.join(wrong.parts)}` is not an option of a model", where=wrong.place, hint="write `model.KEY=VALUE`")
    found = subjects([*(models or ()), *(among or ())], registry)
    with render.loading():
        from distillctl.commands.budget import Budget, fitting
        from distillctl.commands.measure import Settings, check, measure_all

    limits = Budget.parse(budget or ())
    settings = check(
        Settings(
            device=device,
            threads=threads,
            runtime="onnx" if runtime == "onnx" else "torch",
            batches=tuple(sorted(set(batch or _BATCHES))),
            size=image_size,
            classes=num_classes,
            options={edit.parts[1]: edit.value for edit in edits},
            allow_code=allow_code,
            longest=math.inf if batch else _LONGEST,
        )
    )
    fits: Fitting | None = None
    with _progress() as told:
        if budget:
            fits = fitting(found, settings, registry, limits, min_top1=min_top1, limit=limit, told=told)
            costs, failures = fits.rows, fits.failures
        else:
            costs, failures = measure_all(found, settings, registry, told)
    if csv_file is not None:
        _write_csv(csv_file, costs)
    if as_json:
        render.as_json(_json(costs, failures, settings, fits))
    else:
        print_costs(costs, settings)
        if slow := [cost.name for cost in costs if max(settings.batches) not in cost.latencies]:
            render.words(
                f"{', '.join(slow)}: ×{settings.batches[-1]} would take more than {_LONGEST:g} s; `--batch N` times it all the same"
            )
        if fits is not None:
            _print_fits(fits, min_top1)
        for failure in failures:
            render.words(f"not measured: {failure.name}: {failure.reason}{f' ({failure.hint})' if failure.hint else ''}")
    return 1 if failures else 0


def _check(models: Sequence[str], budget: Sequence[str], with_budget: Mapping[str, object], runtime: str, csv_file: Path | None) -> None:
    """Says at once, before torch is imported, what is mistyped."""
    if not budget and (given := next((name for name, value in with_budget.items() if value), "")):
        raise ProfileError(f"`{given}` has no effect without `--budget`", where=given, hint="for example `--budget 10ms`")
    if not models and not with_budget["--from"]:
        hint = "for example `--from 'timm/*'`" if budget else "for example `distillctl measure resnet8 'torchvision/resnet*'`"
        raise ProfileError("nothing is named that could be measured", where="measure", hint=hint)
    if runtime not in ("torch", "onnx"):
        raise ProfileError(f"unknown runtime `{runtime}`", where="--runtime", hint="allowed: torch, onnx")
    if csv_file is not None and (csv_file.is_dir() or not csv_file.parent.is_dir()):
        wrong = f"`{csv_file}` is a folder" if csv_file.is_dir() else f"there is no folder `{csv_file.parent}`"
        raise ProfileError(wrong, where="--csv")


@contextmanager
def _progress() -> Iterator[Any]:
    """Says on a terminal what is going on, in one line of stderr that is empty again afterwards."""
    shown = sys.stderr.isatty()

    def told(text: str) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[K{one_line(text, max(20, render.width() - 1))}")
            sys.stderr.flush()

    try:
        yield told
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def print_costs(costs: Sequence[Cost], settings: Settings) -> None:
    """One table, and a line that says how it was measured."""
    if not costs:
        return
    sizes = sorted({cost.size for cost in costs})
    batches = sorted({batch for cost in costs for batch in cost.latencies})
    columns: dict[str, list[str]] = {
        "model": [cost.name for cost in costs],
        "pixels": [str(cost.size) for cost in costs] if len(sizes) > 1 else [""] * len(costs),
        "params": [magnitude(cost.parameters) for cost in costs],
        "MACs": [magnitude(cost.macs) for cost in costs],
        "MB": [f"{cost.file / 1e6:.2f}" if cost.file < 1e7 else f"{cost.file / 1e6:.1f}" for cost in costs],
    }
    for batch in batches:
        times = [cost.latencies.get(batch) for cost in costs]
        columns[f"ms ×{batch}"] = ["" if t is None else milliseconds(t.median) for t in times]
        columns[f"p95 ×{batch}"] = ["" if t is None else milliseconds(t.p95) for t in times]
    last = batches[-1]
    columns["images/s"] = [_rate(last / cost.latencies[last].median) if last in cost.latencies else "" for cost in costs]
    columns["memory"] = ["" if cost.memory is None else f"{cost.memory / 1e6:,.0f}" for cost in costs]
    columns["top-1"] = ["" if cost.top1 is None else f"{cost.top1.value:.2%}" for cost in costs]
    columns["of"] = ["" if cost.top1 is None else cost.top1.source for cost in costs]
    numbers = {name: _right(name, cells) for name, cells in columns.items() if name not in ("model", "of")}
    shown = {name: numbers.get(name, (name, cells)) for name, cells in columns.items()}
    less = [f"p95 ×{batch}" for batch in reversed(batches)] + ["images/s", "of", "memory", "MB"]
    render.table(
        [head for head, _ in shown.values()],
        list(zip(*(cells for _, cells in shown.values()), strict=True)),
        less=[shown[name][0] for name in less],
    )
    threads = counted(costs[0].threads, "thread")
    where = f"on {settings.device}, {threads}" if settings.device == "cpu" else f"on {settings.device}"
    pixels = f"images of {sizes[0]} pixels; " if len(sizes) == 1 else ""
    told = _sources([cost.top1 for cost in costs if cost.top1 is not None])
    render.words(
        f"{settings.runtime} {where}; {pixels}ms: median of forwards of a batch of ×N images; MACs: of one image; MB: on disk; "
        f"memory: MB at the peak, with the weights{told}",
        2,
    )


def _rate(images: float) -> str:
    """Images a second: 1,250, 12 or 0.46."""
    return f"{images:,.0f}" if images >= 10 else f"{images:.2g}"


def _sources(known: Sequence[Top1]) -> str:
    """Where top-1 comes from, in short."""
    kinds = dict.fromkeys(one.source.partition(",")[0] for one in known)
    return f"; top-1: {', '.join(f'{kind} on ImageNet' if kind == 'published' else kind for kind in kinds)}" if kinds else ""


def _right(name: str, cells: Sequence[str]) -> tuple[str, list[str]]:
    """A column of numbers with their last digits below each other."""
    width = max(len(name), *map(len, cells))
    return name.rjust(width), [cell and cell.rjust(width) for cell in cells]


def _print_fits(fits: Fitting, min_top1: float) -> None:
    more = f", {fits.more:,} more than shown" if fits.more else ""
    count = f"{len(fits.rows) + fits.more:,} of {counted(fits.candidates, 'model')} fit{more}"
    render.words(f"{count}; {fits.timed:,} were timed, and the others left out before")
    if fits.unknown:
        has = "has" if fits.unknown == 1 else "have"
        render.words(f"{counted(fits.unknown, 'model')} {has} no known top-1 and cannot be held against --min-top1 {min_top1:g}: left out")


def _json(costs: Sequence[Cost], failures: Sequence[Failure], settings: Settings, fits: Fitting | None) -> dict[str, Any]:
    found = (
        {"candidates": fits.candidates, "timed": fits.timed, "without_top1": fits.unknown, "more": fits.more} if fits is not None else {}
    )
    return {
        "device": settings.device,
        "runtime": settings.runtime,
        "models": [cost.as_dict() for cost in costs],
        "failures": [vars(failure) for failure in failures],
        **found,
    }


def _write_csv(path: Path, costs: Sequence[Cost]) -> None:
    """The rows as a file; a line for each model, with a column for each figure of each batch."""
    rows = []
    for cost in costs:
        row = cost.as_dict()
        for found in row.pop("latency"):
            row |= {f"{name}_batch{found['batch']}": found[name] for name in ("median_ms", "p95_ms", "images_per_second")}
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else csv_cell(value) for name, value in row.items()} for row in rows)
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise MachineError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}", where="--csv") from error
