"""Runs in Weights & Biases, each under an id of its own, so that one that goes on is the same run there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import wandb

from distillctl import RunStart, SeriesTracker
from distillctl_wandb.options import WandbOptions


class WandbTracker(SeriesTracker):
    """Logs curves, the resolved profile as the configuration, and the result as the summary."""

    options: WandbOptions

    def open(self, run: RunStart, config: Mapping[str, Any]) -> int:
        # Without a key it raises instead of asking for one on the terminal; and what the run prints stays the run's.
        wandb.setup(wandb.Settings(silent=True))
        options = self.options
        self._run = wandb.init(
            project=options.project or os.environ.get("WANDB_PROJECT", "distillctl"),
            entity=options.entity,
            group=options.group,
            tags=options.tags or None,
            mode=options.mode,
            id=run.id,
            name=run.path.name,
            resume="allow",
            config=dict(config),
            dir=str(run.path),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="epoch")
        # Without a network nobody can be asked what is there: whatever was saved was written to a folder as well.
        kept = any(run.path.glob(f"wandb/offline-run-*-{run.id}/*.wandb")) and len(run.records) * run.steps
        return max(self._run.starting_step - 1, kept or -1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def shut(self) -> None:
        self._run.finish()
