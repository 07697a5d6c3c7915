"""`distillctl tracin`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl import ProfileError
from distillctl_tracin.request import Request

if TYPE_CHECKING:
    from distillctl_tracin.trace import Network, Traced

FOLDER = "tracin"


def tracin(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run that kept checkpoints (train.keep_every).", show_default=False)],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER_RUN]", help="The run to compare with; by default that of its teacher.", show_default=False),
    ] = None,
    train: Annotated[str, typer.Option("--train", metavar="17,203|all", help="Positions in the training split, or all.")] = "",
    test: Annotated[str, typer.Option("--test", metavar="all|N", help="All images of the split, or N spread evenly over it.")] = "all",
    layers: Annotated[
        str, typer.Option("--layers", metavar="last|all|NAME,…", help="Whose gradients: the classifier's, all, or those of modules.")
    ] = "last",
    project: Annotated[
        int | None, typer.Option("--project", metavar="K", min=1, help="Project gradients onto K numbers at random.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the projection.")] = 0,
    checkpoints: Annotated[str, typer.Option("--checkpoints", metavar="all|2,4,6", help="Epochs that both runs kept.")] = "all",
    topk: Annotated[str, typer.Option("--topk", metavar="100,500,…", help="Sizes of the compared tops.")] = "100,500,800,1000,2000",
    split: Annotated[str, typer.Option("--split", help="test (the default, if there is one), val or train.")] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of dataset, such as dataset.root=FOLDER.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write files there; else in RUN/tracin.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    accept_change: Annotated[bool, typer.Option("--accept-change", help="Go on although images are not those of the training.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the file of a model or data set of one's own.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Trace losses of test images to training images, and compare two runs.

    The influence of a training image on a test image is the sum over checkpoints of learning rate times the dot product of both gradients
    of the cross entropy (TracInCP). Positive: training on it lowered the loss.

    Examples:
        distillctl tracin runs/NAME --train 17,203

        distillctl tracin runs/NAME runs/OTHER --train all --test 1000 --json
    """
    request = _request(train, test, layers, project, seed, checkpoints, topk, split)
    from distillctl import open_run
    from distillctl_tracin.files import summary
    from distillctl_tracin.trace import trace

    def opened(path: Path) -> Any:
        return open_run(path, device=device, overrides=set_ or (), allow_code=allow_code)

    first = opened(run)
    notes = []
    second = opened(other) if other is not None else None
    if other is None and first.teacher is not None:
        second = opened(first.teacher)
        if not second.kept:
            notes.append(f"not compared: its teacher's run `{first.teacher}` kept no checkpoints (`train.keep_every`)")
            second = None
    if not accept_change:
        for one in (first, *([] if second is None else [second])):
            one.check_images("train")
            one.check_images(request.split or ("test" if one.task.data.test is not None else "val"))
    folder = run / FOLDER if out is None else out
    traced = trace(first, second, request, folder, told=_told)
    traced.notes.extend(notes)
    names = _names(traced)
    files = _write(folder, traced, request, names)
    if as_json:
        typer.echo(json.dumps(summary(traced, request), indent=1, allow_nan=False))
    else:
        _print(traced, request, names, folder, files)


def _request(train: str, test: str, layers: str, project: int | None, seed: int, checkpoints: str, topk: str, split: str) -> Request:
    """What the options say, looked at before torch is imported.

    Raises:
        ProfileError: an option is not what it can be.
    """
    if not train:
        hint = "positions in the training split, such as `--train 17,203`, or `--train all`"
        raise ProfileError("nothing says which training images are meant", where="--train", hint=hint)
    if split not in ("", "train", "val", "test"):
        raise ProfileError(f"unknown split `{split}`", where="--split", hint="allowed: train, val, test")
    if layers == "last" and project is not None:
        raise ProfileError("`--project` has no effect on the last layer, whose dot products are exact and cheap", where="--project")
    count = None if test == "all" else _numbers(test, "--test", "`all`, or a number")
    if count is not None and (len(count) != 1 or count[0] < 1):
        raise ProfileError(f"`{test}` is not a number of images", where="--test", hint="`all`, or a number")
    return Request(
        train=None if train == "all" else _numbers(train, "--train", "`all`, or positions such as `17,203`"),
        test=None if count is None else count[0],
        split=split,
        layers=[name.strip() for name in layers.split(",") if name.strip()],
        project=project,
        seed=seed,
        checkpoints=None if checkpoints == "all" else _numbers(checkpoints, "--checkpoints", "`all`, or epochs such as `2,4,6`"),
        topk=sorted(k for k in set(_numbers(topk, "--topk", "numbers such as `100,500`")) if k > 0),
    )


def _numbers(text: str, where: str, hint: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise ProfileError(f"`{text}` is not a list of numbers", where=where, hint=hint)
    return [int(part) for part in dict.fromkeys(parts)]


def _names(traced: Traced) -> list[str]:
    """What the networks are called: the teacher is one if it is that of the first run."""
    if traced.other is None:
        return ["run"]
    taught = traced.run.run.teacher
    return ["student", "teacher"] if taught is not None and taught.resolve() == traced.other.run.path.resolve() else ["run", "other"]


def _told(text: str) -> None:
    if sys.stderr.isatty():
        typer.echo(text, err=True)


def _write(folder: Path, traced: Traced, request: Request, names: Sequence[str]) -> list[str]:
    from distillctl_tracin.files import write_files
    from distillctl_tracin.pictures import draw_sheet, write_distributions

    files = write_files(folder, traced, request)
    draw_sheet(traced, names).save(folder / "images.png")
    files.append("images.png")
    try:
        write_distributions(folder / "distributions.png", traced, names)
    except ImportError:
        traced.notes.append("no plot: `pip install 'distillctl-tracin[plots]'`")
    else:
        files.append("distributions.png")
    return files


def _print(traced: Traced, request: Request, names: Sequence[str], folder: Path, files: Sequence[str]) -> None:
    from distillctl_tracin.files import correlations, epoch_figures, overlap_rows

    networks = list(traced.networks.values())
    for name, network in zip(names, networks, strict=True):
        typer.echo(f"{name:<9}{network.run.path} ({network.run.spec.qualified})")
    epochs, count = list(traced.run.rates), len(traced.train)
    typer.echo(f"epochs   {', '.join(map(str, epochs if len(epochs) < 13 else [*epochs[:6], '…', *epochs[-5:]]))}")
    typer.echo(f"images   {count:,} for training, {len(traced.test):,} of {traced.split}")
    projected = f", projected onto {request.project}" if request.project else ""
    typer.echo(f"layers   {', '.join(request.layers)}{projected}")
    for note in traced.notes:
        _words("note", note)
    typer.echo("")
    figures = [epoch_figures(network) for network in networks]
    _table(["", *names], [[words, *cells] for words, cells in _lines(networks, figures) if any(cells)])
    if traced.other is not None:
        typer.echo("")
        _table(
            ["top", "proponents", "opponents", "by chance", "95 % of it", "z", "Jaccard", "above it"],
            [
                [
                    f"{row['k']:,}",
                    f"{row['proponents']:,.1f}".removesuffix(".0"),
                    f"{row['opponents']:,.1f}".removesuffix(".0"),
                    f"{row['chance']:,.1f}",
                    f"{row['chance_low']}–{row['chance_high']}",
                    "–" if row["z"] is None else f"{row['z']:.1f}",
                    f"{row['jaccard']:.3f}",
                    f"{row['above']:,} of {count:,}",
                ]
                for row in overlap_rows(traced)
            ],
        )
        found = {name: "–" if value is None else f"{value:.3f}" for name, value in correlations(traced).items()}
        typer.echo("")
        typer.echo(f"ranks    Spearman {found['spearman']}, Kendall {found['kendall']}")
        by_chance = found["rank_biased_overlap_chance"]
        typer.echo(f"         rank-biased overlap {found['rank_biased_overlap']} (by chance {by_chance})")
        if count > 1:
            typer.echo(f"         means over {count:,} training images; intervals are those of one")
    _words("files", f"{folder}: {', '.join(files)}")


def _lines(networks: Sequence[Network], figures: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """What is told of each network, beside each other."""
    metric = networks[0].run.task.names.get(networks[0].run.task.metric, networks[0].run.task.metric)
    last = max(networks[0].rates)

    def cells(key: str, text: Any) -> list[str]:
        return ["" if found.get(key) is None else text(found[key]) for found in figures]

    return [
        (f"{metric} of training, epoch {last}", cells("train", lambda value: f"{value:.2%}")),
        *((f"{metric} of {name}, epoch {last}", cells(name, lambda value: f"{value:.2%}")) for name in ("val", "test")),
        ("training, seconds an epoch", cells("train_seconds", lambda value: f"{value:.1f}")),
        ("an evaluation, seconds", cells("evaluation_seconds", lambda value: f"{value:.1f}")),
        ("parameters with gradients", [f"{network.parameters:,}" for network in networks]),
        ("TracIn, ms a value", [f"{network.milliseconds:.3g}" for network in networks]),
    ]


def _words(name: str, text: str) -> None:
    lines = textwrap.wrap(text, get_terminal_size().columns - 9, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        typer.echo(f"{'' if number else name:<9}{line}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        typer.echo("  ".join(cells).rstrip())
