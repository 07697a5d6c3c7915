"""Options of `mlflow`."""

from __future__ import annotations

from distillctl import Options


class MLflowOptions(Options):
    """Options of `mlflow`. Keys and passwords are none: the service's own variables and files have them."""

    experiment: str | None = None
    """The experiment; by default `MLFLOW_EXPERIMENT_NAME`, or else `distillctl`."""
    uri: str | None = None
    """Where runs are kept, such as `sqlite:///runs/mlflow.db` or `http://server:5000`; by default `MLFLOW_TRACKING_URI`, or else a file
    `mlflow.db` in the current directory."""
