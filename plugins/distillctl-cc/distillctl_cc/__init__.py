"""Correlation congruence for distillctl."""
