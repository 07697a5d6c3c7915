"""Runs in TensorBoard, a distillctl tracker."""
