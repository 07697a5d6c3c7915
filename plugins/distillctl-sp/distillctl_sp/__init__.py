"""Similarity-preserving distillation for distillctl."""
