"""Contrastive representation distillation for distillctl."""
