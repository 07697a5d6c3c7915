"""Curriculum temperature for knowledge distillation, a distillctl wrapper."""
