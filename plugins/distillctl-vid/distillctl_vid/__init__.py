"""Variational information distillation for distillctl."""
