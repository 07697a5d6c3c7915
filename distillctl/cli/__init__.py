"""The command line: one file a command, each calling one function that a Python user could call."""

from __future__ import annotations

import atexit
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from distillctl.cli.other_tools import OF_TRAIN, OPTIONS
from distillctl.distributed import heartbeat
from distillctl.distributed.stop_signals import SIGNALS
from distillctl.errors import DistillError, LostProcessError, MachineError, Problem, ProfileError
from distillctl.files import FULL_OR_CLOSED

TTA = ("auto", "flip", "five_crop", "ten_crop", "multi_scale")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command that the arguments name, and exits.

    Exit codes: 0 done, 1 the run failed, 2 the profile or the command line is wrong, 3 the environment, 75 another process of the
    run was lost, 130 and 143 signals. A bug keeps its traceback.
    """
    for number in SIGNALS:
        if number != signal.SIGINT:  # which is Python's own KeyboardInterrupt
            signal.signal(number, _terminated)
    _open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = run(given)
        sys.stdout.flush()
        if code:
            heartbeat.let_the_first_speak()
        if "--json" in given:
            atexit.register(_silence)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _silence()
        code = 141
    except KeyboardInterrupt:  # before the command was found, or after it
        _complain("interrupted")
        code = 130
    except Exception:
        heartbeat.let_the_first_speak()
        raise
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends the program: at once where a tracker hangs, whose client would wait for its service when Python ends."""
    trackers = sys.modules.get("distillctl.engine.trackers")
    if trackers is not None and trackers.left_behind:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code; errors that a user can put right are printed to stderr."""
    import typer

    from distillctl.cli.app import command_for

    click_exception = typer.BadParameter.__bases__[0].__bases__[0]  # which typer does not export under its own name
    arguments = join_tta(arguments) or ["--help"]  # a shell that asks how a line goes on gives its words elsewhere
    name = arguments[0]
    try:
        Path.cwd()
    except OSError:
        _complain(str(Problem("the current directory does not exist any more", "", "change to another one")))
        return MachineError.exit_code
    try:
        result: Any = command_for(name).main(args=arguments, prog_name="distillctl", standalone_mode=False)
    except DistillError as error:
        if not (isinstance(error, LostProcessError) and heartbeat.supervised()):  # then the launcher says who was lost
            _complain(str(error))
        return error.exit_code
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            _complain(str(Problem(f"`{str(error.filename)[:80]}` is not a path: {(error.strerror or '').lower()}")))
            return ProfileError.exit_code
        if error.errno not in FULL_OR_CLOSED:
            raise
        place = f" at `{error.filename}`" if error.filename else ""
        _complain(str(Problem(f"{(error.strerror or str(error)).lower()}{place}")))
        return MachineError.exit_code
    except RuntimeError as error:
        if "home directory" not in str(error):  # of `Path.expanduser`
            raise
        _complain(str(Problem("a path begins with the home folder of a user who has none", "", "is it one of `DISTILLCTL_CACHE`?")))
        return ProfileError.exit_code
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # click has turned it into the code 1, which means a failed run here
            return 141
        raise
    except (KeyboardInterrupt, typer.Abort):
        result = 130
    except typer.Exit as stop:
        return stop.exit_code
    except click_exception as error:  # type: ignore[misc]
        _complain(_usage(error, name))
        return 2
    code = result if isinstance(result, int) and not isinstance(result, bool) else 0
    if code == 130:  # typer makes of Ctrl-C an exit code and says nothing
        _complain("interrupted")
    return code


def join_tta(arguments: Sequence[str]) -> list[str]:
    """`--tta flip` becomes `--tta=flip` and a bare `--tta` becomes `--tta=auto`, for `eval`: an option whose value may be left out."""
    if not arguments or arguments[0] != "eval":
        return list(arguments)
    result: list[str] = []
    for position, argument in enumerate(arguments):
        if position and arguments[position - 1] == "--tta" and argument in TTA:
            result[-1] = f"--tta={argument}"
        else:
            result.append("--tta=auto" if argument == "--tta" else argument)
    return result


def _usage(error: Any, name: str) -> str:
    """What typer says about a wrong option or argument, in the form of every other error."""
    near = [f"`{option}`" for option in getattr(error, "possibilities", None) or ()]
    unknown = hasattr(error, "option_name") and hasattr(error, "possibilities")
    message = f"no option is called `{error.option_name}`" if unknown else str(error.format_message())
    message = " ".join(message.replace("'", "`").split()).rstrip(".")
    command = "" if name.startswith("-") else f" {name}"
    meant = OPTIONS.get(error.option_name, "") if unknown else ""
    if unknown and error.option_name in OF_TRAIN:
        meant = "it is one of `distillctl train`"
    elif "unexpected extra argument" in message and "=" in message:
        meant = "a key of the profile is set by `--set KEY=VALUE`"
    first = f"{meant}; " if meant else f"did you mean {near[0]}? " if near else ""
    hint = f"{first}`distillctl{command} --help` shows how it is used"
    return str(Problem(message[:1].lower() + message[1:], "", hint))


def _open_streams() -> None:
    """Closed streams swallow what is written; a character that the locale cannot show is written as an escape instead of ending a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the program ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence() -> None:
    """What is written to stdout from now on is lost. At the end of a program it comes before what plugins want to be called at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    """Prints lines to stderr, without anything that would steer a terminal."""
    from distillctl.cli.render import wrapped

    for line in text.split("\n"):
        print("\n".join(wrapped(line, 6)), file=sys.stderr)  # noqa: T201


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)
