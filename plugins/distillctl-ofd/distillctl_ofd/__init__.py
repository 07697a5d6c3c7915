"""Comprehensive overhaul of feature distillation for distillctl."""
