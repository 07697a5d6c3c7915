"""What `--slurm KEY=VALUE` may say, as parameters of submitit's executors.

The keys are submitit's and sbatch's names; `gpus-per-node`, `slurm_gpus_per_node` and `gpus_per_node` mean the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distillctl.errors import Problem, ProfileError

WHERE = "--slurm"
_ALIASES = {"timeout_min": "time", "name": "job_name", "comments": "comment"}
_ELSEWHERE = {
    "ntasks": "one task starts all processes of the node: see `--nproc`",
    "ntasks_per_node": "one task starts all processes of the node: see `--nproc`",
    "tasks_per_node": "one task starts all processes of the node: see `--nproc`",
    "output": "see `--logs`",
    "error": "see `--logs`",
    "stderr_to_stdout": "the two logs are kept apart, since a failure is told by the end of one",
    "signal": "`signal_delay_s` says how many seconds before the end the training is asked to save",
    "requeue": "every job may be requeued",
    "array": "see `--seeds`",
    "chdir": "the job runs in the folder in which it was submitted",
    "mail": "`mail_type` and `mail_user` say when and to whom",
}


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    minutes: the time limit; None if nothing was said.
    signal_delay: seconds between the signal that announces the limit and the limit; None if nothing was said.
    gpus: of the one node; 0 if none were asked for, None if their number cannot be told.
    parameters: for `submitit.SlurmExecutor.update_parameters`, without the two above.
    """

    minutes: int | None = None
    signal_delay: int | None = None
    gpus: int | None = 0
    parameters: dict[str, Any] = field(default_factory=dict)


def read_resources(pairs: Sequence[str]) -> Resources:
    """Reads `KEY=VALUE` pairs.

    Raises:
        ProfileError: with every pair that is not right.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for pair in pairs:
        try:
            name, value = _read(pair)
            if name == "setup":
                values.setdefault(name, []).append(value)
            elif name in values:
                raise ProfileError(f"`{name}` is given twice", where=WHERE)
            else:
                values[name] = value
        except ProfileError as error:
            problems += error.problems
    if "mem" in values and "mem_gb" in values:
        problems.append(Problem("`mem` and `mem_gb` say the same", WHERE, "leave one of them away"))
    minutes, delay = values.pop("time", None), values.pop("signal_delay_s", None)
    if minutes is not None and delay is not None and delay >= 60 * minutes:
        problems.append(Problem(f"`signal_delay_s` is {delay}, but `time` is only {60 * minutes} seconds", WHERE))
    if problems:
        raise ProfileError(problems)
    if "mem_gb" in values:
        values["mem"] = f"{round(1024 * values.pop('mem_gb'))}M"
    gpus = _gpus(values)
    extra = {name: values.pop(name) for name in sorted(_NOT_OF_SUBMITIT & values.keys())}
    if extra:
        values["additional_parameters"] = extra
    return Resources(minutes, delay, gpus, values)


def _read(pair: str) -> tuple[str, Any]:
    written, equals, value = pair.partition("=")
    name = written.strip().replace("-", "_").removeprefix("slurm_")
    name = _ALIASES.get(name, name)
    value = value.strip()
    if not equals or not name:
        raise ProfileError(f"`{pair}` is not KEY=VALUE", where=WHERE, hint="such as `--slurm partition=gpu`")
    if name in _ELSEWHERE:
        raise ProfileError(f"`{written}` cannot be set", where=WHERE, hint=_ELSEWHERE[name])
    if name not in _KEYS:
        near = difflib.get_close_matches(name, _KEYS, 1, 0.5)
        hint = f"did you mean `{near[0]}`?" if near else "known are " + ", ".join(f"`{key}`" for key in sorted(_KEYS))
        raise ProfileError(f"no parameter is called `{written}`", where=WHERE, hint=hint)
    if not value.isprintable():  # a line of its own in the job's script would be a command
        raise ProfileError(f"the value of `{name}` has a character that cannot be printed", where=WHERE)
    what, pattern, convert = _KEYS[name]
    try:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(value)
        result = convert(value)
    except ValueError:
        raise ProfileError(f"`{name}` must be {what}, not `{value}`", where=WHERE) from None
    if name == "nodes" and result != 1:
        raise ProfileError(
            f"a training runs on one node, and `nodes` is {value}", where=WHERE, hint="`--nproc` uses several GPUs of one node"
        )
    return name, result


def read_minutes(text: str) -> int:
    """A time limit in minutes, from SLURM's forms; begun minutes count.

    They are `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes` and
    `days-hours:minutes:seconds`.

    Raises:
        ValueError: it is none of them, or 0.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text, re.ASCII)
    if found is None:
        raise ValueError(text)
    days, *parts = (None if part is None else int(part) for part in found.groups())
    numbers = [part for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    total = 60 * (24 * (days or 0) + hours) + minutes + (seconds + 59) // 60
    if total == 0:
        raise ValueError(text)
    return total


def _gpus(values: dict[str, Any]) -> int | None:
    """How many GPUs the parameters ask for."""
    asked = [values[name] for name in ("gpus_per_node", "gpus_per_task", "gpus") if name in values]
    if not asked:
        return None if "gres" in values or "setup" in values else 0
    return int(str(asked[0]).rpartition(":")[2])


_WHOLE = r"0*[1-9]\d*"
_COUNT = ("a whole number from 1", _WHOLE, int)
_TEXT = ("a text", r".*\S.*", str)
_GPUS = ("a number of GPUs, or `TYPE:NUMBER`", r"([\w.+-]+:)?[1-9]\d*", str)
_MEMORY = ("a size such as `16G` or `16000`", r"\d+[KMGT]?B?", str)

_KEYS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "time": ("minutes, or a form of SLURM's such as `4:00:00`", ".*", read_minutes),
    "signal_delay_s": ("seconds", _WHOLE, int),
    "nodes": ("1", _WHOLE, int),
    "cpus_per_task": _COUNT,
    "cpus_per_gpu": _COUNT,
    "gpus_per_node": _GPUS,
    "gpus_per_task": _GPUS,
    "gpus": _GPUS,
    "mem_gb": ("a number of gigabytes", r"(?=.*[1-9])\d+(\.\d+)?", float),
    "mem": _MEMORY,
    "mem_per_cpu": _MEMORY,
    "mem_per_gpu": _MEMORY,
    "exclusive": ("`true`, `user` or `mcs`", "true|user|mcs", lambda text: True if text == "true" else text),
    "nice": ("a whole number", r"-?\d+", str),
    **dict.fromkeys(("partition", "account", "qos", "constraint", "exclude", "nodelist", "gres", "dependency", "job_name"), _TEXT),
    **dict.fromkeys(("comment", "mail_type", "mail_user", "wckey", "setup", "reservation", "licenses", "begin"), _TEXT),
}
"""What a value must be: in words, as a pattern, and how it is read then."""
_NOT_OF_SUBMITIT = {"gpus", "nice", "reservation", "licenses", "begin"}
