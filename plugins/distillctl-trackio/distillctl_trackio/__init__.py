"""Runs in Trackio, a distillctl tracker."""
