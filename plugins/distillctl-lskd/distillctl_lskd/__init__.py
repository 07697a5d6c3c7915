"""Logit standardization for knowledge distillation, a distillctl wrapper."""
