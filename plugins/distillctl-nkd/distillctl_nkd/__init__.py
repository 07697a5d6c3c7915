"""Normalized knowledge distillation for distillctl."""
