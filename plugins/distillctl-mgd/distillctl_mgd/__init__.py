"""Masked generative distillation for distillctl."""
