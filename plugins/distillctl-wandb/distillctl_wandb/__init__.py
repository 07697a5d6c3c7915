"""Runs in Weights & Biases, a distillctl tracker."""
