"""Projector ensemble feature distillation, a distillctl plugin."""
