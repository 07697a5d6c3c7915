"""Decoupled knowledge distillation for distillctl."""
