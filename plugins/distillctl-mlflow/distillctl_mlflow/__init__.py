"""Runs in MLflow, a distillctl tracker."""
