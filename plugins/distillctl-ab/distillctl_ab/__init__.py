"""Activation boundaries, a distillctl plugin."""
