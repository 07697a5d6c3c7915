"""Relational knowledge distillation, a distillctl plugin."""
