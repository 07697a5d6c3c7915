"""Probabilistic knowledge transfer, a distillctl plugin."""
