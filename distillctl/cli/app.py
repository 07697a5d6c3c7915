"""The commands by name, ours and those of plugins. Only the module of the command that runs is imported, so that listing stays fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import typer
import typer.core

from distillctl.api.specs import CommandSpec
from distillctl.cli.other_tools import COMMANDS as MEANT
from distillctl.errors import PluginError
from distillctl.plugin.catalog import Catalog
from distillctl.text import one_line


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
    "sweep": Command("sweep:sweep", "Train a profile with several values, methods and seeds."),
    "runs": Command("runs:runs", "List the runs with their figures."),
    "compare": Command("compare:compare", "Compare runs over their seeds with a control."),
    "report": Command("report:report", "Write a page with the curves and figures of runs."),
    "softmax": Command("softmax:softmax", "Show what a temperature makes of a network's answers."),
    "reproduce": Command("reproduce:reproduce", "Train what a profile publishes, and compare."),
    "predict": Command("predict:predict", "Classify images, or find objects, with a student."),
    "export": Command("export:export", "Write a student as ONNX, torch.export or safetensors."),
    "bench": Command("bench:bench", "Measure the speed of a training step."),
    "measure": Command("measure:measure", "Measure what models cost: size, time and memory."),
    "check": Command("check:check", "Check a profile and explain every value."),
    "check-data": Command("check_data:check_data", "Decode every image and report what is broken."),
    "init": Command("init:init", "Write a commented profile to start from."),
    "new": Command("new:new", "Write a package that adds a method, model or data set."),
    "show": Command("show:show", "Show a method, model, data set, optimizer or run."),
    "list-methods": Command("listing:list_methods", "List the methods."),
    "list-models": Command("listing:list_models", "List the models."),
    "list-datasets": Command("listing:list_datasets", "List the data sets."),
    "plugins": Command("listing:plugins", "List the plugins and what each provides."),
}


class _Commands(typer.core.TyperGroup):
    """The list of commands with those of plugins below ours. Plugins are looked for when it is printed, or when a shell asks for it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        super().format_commands(ctx, formatter)
        found = plugin_commands()
        if len(found):
            with formatter.section("Plugins"):
                formatter.write_dl([(found.shown_name(spec), one_line(spec.summary)) for spec in found])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What can follow `distillctl`: typer lists the commands that it has."""
        found = plugin_commands()
        for spec in found:
            self.add_command(typer.core.TyperCommand(found.shown_name(spec), short_help=one_line(spec.summary)))
        return super().shell_complete(ctx, incomplete)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command in these words. A shell that asks how they go on gives them to us here first, so that it is not loaded yet."""
        if not ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        try:
            return args[0], command_for(args[0]).commands[args[0]], args[1:]
        except PluginError:
            return None, None, args[1:]


def plugin_commands() -> Catalog[CommandSpec]:
    """The commands of the installed plugins."""
    from distillctl.plugin.registry import Registry

    return Registry.load(own_commands=COMMANDS).commands


def command_for(name: str) -> Any:
    """The command line as click's object, with the function of one command loaded and only the names of the others.

    Raises:
        PluginError: there is no such command, or that of a plugin cannot be loaded.
    """
    app = typer.Typer(
        name="distillctl",
        cls=_Commands,
        help="Knowledge distillation of vision models from one TOML profile.",
        epilog=_examples(["distillctl init && distillctl train quickstart.toml", "distillctl list-methods"]),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
            # A flag that is not None spares typer a pydantic adapter, and listing the import of pydantic.
            "default_map": {"help": False, "install_completion": False, "show_completion": False, name: {"help": False}},
        },
    )
    app.callback()(_top_level)
    for other, command in COMMANDS.items():
        if other == name:
            module, _, function = command.function.partition(":")
            _add(app, other, command.summary, getattr(import_module(f"distillctl.cli.{module}"), function))
        else:
            app.command(other, help=command.summary)(_not_loaded)
    if name in COMMANDS or name.startswith("-"):
        return typer.main.get_command(app)
    return _with_plugin(app, name)


def _add(app: typer.Typer, name: str, summary: str, function: Callable[..., Any]) -> None:
    text, _, examples = cleandoc(function.__doc__ or "").partition("Examples:\n")
    app.command(name, help=text.strip() or summary, short_help=summary, epilog=_examples(examples.split("\n")))(function)


def _with_plugin(app: typer.Typer, name: str) -> Any:
    """The command line with a plugin's command in it."""
    from distillctl.plugin.importing import RefusedError, attempt
    from distillctl.plugin.registry import load

    found = plugin_commands()
    if name not in found and name in MEANT:
        raise PluginError(f"no command is called `{name}`", hint=MEANT[name])
    if name not in found and name.endswith(".toml"):
        raise PluginError(f"no command is called `{name}`", hint=f"`distillctl train {name}` trains by it")
    spec = found.get(name)
    function = load(spec.implementation, spec.name)
    if not callable(function):
        raise PluginError(f"the implementation of the command `{spec.name}` is not a function")
    _add(app, name, spec.summary, function)
    try:
        return attempt(lambda: typer.main.get_command(app))
    except RefusedError as error:
        raise PluginError(f"typer cannot make the command `{spec.name}` of `{spec.implementation}`: {error}") from error


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
