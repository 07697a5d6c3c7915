"""Which training a job runs: the options of `distillctl train`, and the profile that they made when the job was submitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile


@dataclass(frozen=True)
class Request:
    """One training.

    profile, overrides, method, teacher, seed, out, device, nproc, accept_change, track: as `distillctl train` takes them. Of its
        other options, `--fresh` and `--from-previous` would do their work again whenever the job is requeued.
    digest: of the profile when it was submitted; empty before.
    """

    profile: str
    overrides: tuple[str, ...] = ()
    method: str | None = None
    teacher: str | None = None
    seed: int | None = None
    out: Path | None = None
    device: str = "auto"
    nproc: int = 1
    accept_change: bool = False
    track: tuple[str, ...] = ()
    digest: str = ""

    def load(self, registry: Registry) -> Profile:
        """The checked profile.

        Raises:
            ProfileError: it is not right.
        """
        return load(
            self.profile,
            registry=registry,
            overrides=self.overrides,
            method=self.method,
            teacher=self.teacher,
            seed=self.seed,
            track=self.track,
        )

    def check_unchanged(self, registry: Registry) -> None:
        """A job may wait for days, and is requeued: what it trains must still be what was submitted.

        Raises:
            ProfileError: the profile is another one now, or is not right any more.
        """
        if self.load(registry).digest != self.digest:
            raise ProfileError(
                f"`{self.profile}` changed since this job was submitted, or the defaults of its plugins did",
                hint="launch again what it says now; what the job has trained so far stays where it is",
            )

    def arguments(self) -> list[str]:
        """Those of `distillctl`. Values are joined to their options, so that none is taken for an option itself."""
        texts = {"method": self.method, "teacher": self.teacher, "seed": self.seed, "out": self.out}
        return [
            "train",
            *(f"--set={override}" for override in self.overrides),
            *(f"--{name}={value}" for name, value in texts.items() if value is not None),
            *(f"--track={name}" for name in self.track),
            f"--device={self.device}",
            f"--nproc={self.nproc}",
            *(["--accept-change"] if self.accept_change else []),
            "--",
            self.profile,
        ]
