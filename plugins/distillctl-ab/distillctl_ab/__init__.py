"""Activation boundaries for distillctl."""
