"""The exception tree, and the form in which every problem is told.

    DistillError             anything a user can put right; never shown with a traceback
    ├── ProfileError         the profile or the command line is wrong            exit code 2
    ├── PluginError          a plugin is missing or broken                       exit code 2
    ├── DataError            files of a data set or a checkpoint are not right   exit code 1
    ├── RunError             the run itself failed                               exit code 1
    ├── StoppedError         a signal asked the run to stop, and it is saved     exit code 130 or 143
    ├── LostProcessError     another process of the run is gone or silent        exit code 75
    └── MachineError         no such device, disk full, nothing to write to      exit code 3

Everything else that is raised is a bug of distillctl or of a plugin and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    message: one sentence without a full stop, with names in backticks.
    where: `file:line, [table]` or the part of the command line; empty if there is no place.
    hint: what to do about it; empty if the message says it already.
    """

    message: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"error: {self.message}"
        if self.where:
            text += f"\n  --> {self.where}"
        if self.hint:
            text += f"\n\nhint: {self.hint}"
        return text


class DistillError(Exception):
    """Something a user can put right. Holds one or more problems."""

    exit_code = 1

    def __init__(self, problem: str | Problem | Iterable[Problem], *, where: str = "", hint: str = "") -> None:
        if isinstance(problem, str):
            problem = Problem(problem, where, hint)
        self.problems: tuple[Problem, ...] = (problem,) if isinstance(problem, Problem) else tuple(problem)
        super().__init__("\n\n".join(str(p) for p in self.problems))


class ProfileError(DistillError):
    """The profile or the command line is wrong."""

    exit_code = 2


class PluginError(DistillError):
    """A plugin is missing, broken, or does not keep to its interface."""

    exit_code = 2


class DataError(DistillError):
    """Files of a data set, a checkpoint or a run directory are missing or not what they should be."""


class RunError(DistillError):
    """The run failed: a loss that is not finite, an untrained teacher, a method that cannot take the shapes."""


class StoppedError(DistillError):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, message: str, exit_code: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class LostProcessError(DistillError):
    """Another process of the run is gone or silent. The run can be started again as it is."""

    exit_code = 75


class MachineError(DistillError):
    """The machine cannot do it: no such device, disk full, read-only folder."""

    exit_code = 3
