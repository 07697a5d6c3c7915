"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import CommandSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_command() -> CommandSpec:
    """TracIn over the checkpoints of a run, and of another one."""
    return CommandSpec(
        name="tracin",
        summary="Trace test losses to training images; compare runs.",
        paper="Pruthi, Liu, Kale, Sundararajan 2020, arXiv 2002.08484",
        implementation="distillctl_tracin.command:tracin",
    )
