"""Relational knowledge distillation for distillctl."""
