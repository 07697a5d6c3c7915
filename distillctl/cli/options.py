"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ProfileArgument = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile, as a TOML file.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace one key of the profile, such as train.epochs=2. May be given several times.",
        show_default=False,
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method", metavar="NAME", help="Another method with its own defaults; `none` trains on labels alone.", show_default=False
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option("--teacher", metavar="RUN_OR_FILE", help="A run directory, a .toml profile or a file of weights.", show_default=False),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Replace the seed of the profile.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
