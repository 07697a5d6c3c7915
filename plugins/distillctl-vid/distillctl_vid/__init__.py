"""Variational information distillation, a distillctl plugin."""
