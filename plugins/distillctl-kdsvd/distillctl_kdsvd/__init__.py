"""Distillation of singular vectors, a distillctl plugin."""
