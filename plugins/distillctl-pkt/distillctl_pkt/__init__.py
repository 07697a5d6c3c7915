"""Probabilistic knowledge transfer for distillctl."""
