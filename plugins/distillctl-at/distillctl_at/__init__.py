"""Attention transfer, a distillctl plugin."""
