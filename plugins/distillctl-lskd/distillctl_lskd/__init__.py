"""Logit standardization, a distillctl plugin."""
