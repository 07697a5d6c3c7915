"""Transformed teacher matching for distillctl."""
