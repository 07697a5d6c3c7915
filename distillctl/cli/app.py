"""The commands by name. Only the module of the command that runs is imported, so that listing stays fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import typer


@dataclass(frozen=True)
class Command:
    """One command: where its function is, and what the list of commands says.

    The docstring of the function is the help; what stands in it below `Examples:` is printed as it is.
    """

    function: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "train": Command("train:train", "Train a student, or continue an unfinished run."),
    "launch": Command("launch:launch", "Submit a training to SLURM."),
    "eval": Command("eval:eval_", "Evaluate a run."),
    "bench": Command("bench:bench", "Measure the speed of a training step."),
    "check": Command("check:check", "Check a profile and explain every value."),
    "init": Command("init:init", "Write a commented profile to start from."),
    "show": Command("show:show", "Show a method, model, data set or optimizer."),
    "list-methods": Command("listing:list_methods", "List the methods."),
    "list-models": Command("listing:list_models", "List the models."),
    "list-datasets": Command("listing:list_datasets", "List the data sets."),
    "plugins": Command("listing:plugins", "List the plugins and what each provides."),
}


def command_for(name: str) -> Any:
    """The command line as click's object, with the function of one command loaded and only the names of the others."""
    app = typer.Typer(
        name="distillctl",
        help="Knowledge distillation of vision models from one TOML profile.",
        epilog=_examples(["distillctl init && distillctl train quickstart.toml", "distillctl list-methods"]),
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
            # A flag that is not None spares typer a pydantic adapter, and listing the import of pydantic.
            "default_map": {"help": False, name: {"help": False}},
        },
    )
    app.callback()(_top_level)
    for other, command in COMMANDS.items():
        if other == name:
            function = _load(command.function)
            text, _, examples = cleandoc(function.__doc__ or "").partition("Examples:\n")
            app.command(other, help=text.strip(), short_help=command.summary, epilog=_examples(examples.split("\n")))(function)
        else:
            app.command(other, help=command.summary)(_not_loaded)
    return typer.main.get_command(app)


def _load(reference: str) -> Callable[..., Any]:
    module, _, function = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"distillctl.cli.{module}"), function)
    return found


def _top_level(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True, callback=lambda v: _version(v)),
) -> None:
    pass


def _version(wanted: bool) -> None:
    if wanted:
        from distillctl import __version__

        typer.echo(f"distillctl {__version__}")
        raise typer.Exit


def _not_loaded() -> None:
    raise AssertionError("only the command that runs is loaded")


def _examples(lines: Iterable[str]) -> str:
    """Examples as they stand below a help text; the mark in front keeps their lines as they are."""
    kept = [f"  {line.strip()}" for line in lines if line.strip()]
    return "\b\nExamples:\n" + "\n".join(kept) if kept else ""
