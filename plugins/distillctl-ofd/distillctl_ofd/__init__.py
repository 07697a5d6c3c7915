"""Overhaul of feature distillation, a distillctl plugin."""
