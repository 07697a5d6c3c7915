"""What a run was computed with: command, versions, device, commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from typing import Any

import torch

from distillctl import __version__
from distillctl.profile.schema import Profile, StudentChoice, TeacherChoice


def environment(profile: Profile, command: Sequence[str], device: Any, teacher: str | Mapping[str, str | None] | None) -> dict[str, Any]:
    """What `environment.json` says. teacher: hash of the file of its weights, of several by name."""
    ours = {d.name: d.version for d in distributions() if d.name.startswith(("distillctl", "torch", "timm"))}
    return {
        "command": list(command),
        "distillctl": __version__,
        "packages": dict(sorted(ours.items())),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)",
        "git_commit": _git_commit(),
        "teacher_sha256": teacher,
        "licenses": _licenses(profile),
    }


def _licenses(profile: Profile) -> dict[str, str]:
    """`student` and `teacher` (of several `teacher.0`, …) → licence of the pretrained weights by name that it starts from, where one is
    stated.
    """
    named: dict[str, StudentChoice | TeacherChoice] = {"student": profile.student, **{choice.key: choice for choice in profile.teachers}}
    seen = {side: choice.spec.weights_input.get(choice.table.weights) for side, choice in named.items() if choice.spec}
    return {side: one.license for side, one in seen.items() if one is not None and one.license}


def _git_commit() -> str | None:
    """The commit of the folder one stands in, if it is a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
