"""Projector ensemble feature distillation for distillctl."""
