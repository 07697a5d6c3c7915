"""Normalized knowledge distillation, a distillctl plugin."""
