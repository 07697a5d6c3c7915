"""Correlation congruence, a distillctl plugin."""
