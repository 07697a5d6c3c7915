"""Similarity-preserving distillation, a distillctl plugin."""
