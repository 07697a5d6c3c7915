"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillctl.cli import completion

Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile, as a TOML file.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace one key of the profile, such as train.epochs=2. May be given several times.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="Another method with its own defaults; `none` trains on labels alone.",
        show_default=False,
        autocompletion=completion.methods,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="RUN_OR_FILE",
        help="A run directory, a .toml profile or a file of weights.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Tell a tracker of the run, such as tensorboard; needs its package. May be given several times.",
        show_default=False,
        autocompletion=completion.trackers,
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run directory, instead of one below runs/.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
AcceptChange = Annotated[bool, typer.Option("--accept-change", help="Continue a run although something changed; it is noted in the run.")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Run the file of a model or data set that the profile names as file:nets.py:Net; without, it is refused."
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Replace the seed of the profile.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
