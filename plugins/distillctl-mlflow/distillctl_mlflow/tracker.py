"""Runs in MLflow, found again by a tag when they go on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from distillctl import RunStart, SeriesTracker
from distillctl_mlflow.options import MLflowOptions

TAG = "distillctl.id"
"""Holds what tells a run from all others."""
MOST = 100
"""Parameters and metrics that MLflow takes at once."""
_ODD = re.compile(r"[^\w/. :-]+")
LONGEST = 6000
"""Characters of a parameter."""


class MLflowTracker(SeriesTracker):
    """Logs curves, the resolved profile as parameters, and the result at the last step."""

    options: MLflowOptions

    def open(self, run: RunStart, config: Mapping[str, Any]) -> int:
        self._client = MlflowClient(tracking_uri=self.options.uri)
        experiment = self._experiment(self.options.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "distillctl"))
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            return int(found[0].data.metrics.get("step", -1))
        self._id = self._client.create_run(experiment, run_name=run.path.name, tags={TAG: run.id}).info.run_id
        for params in _portions([Param(legal(name), str(value)[:LONGEST]) for name, value in config.items()]):
            self._client.log_batch(self._id, params=params)
        return -1

    def _experiment(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another run was quicker
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now = round(time.time() * 1000)
        for metrics in _portions([Metric(legal(name), value, now, step) for name, value in {**values, "step": step}.items()]):
            self._client.log_batch(self._id, metrics=metrics)

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        self.write(step, values)
        self._ended = "FINISHED"

    _ended = "KILLED"

    def shut(self) -> None:
        self._client.set_terminated(self._id, self._ended)


def legal(name: str) -> str:
    """The name with a `.` for whatever MLflow takes in none: terms of one of several teachers have brackets."""
    return _ODD.sub(".", name).rstrip(".")


def _portions(items: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(items), MOST):
        yield items[first : first + MOST]
