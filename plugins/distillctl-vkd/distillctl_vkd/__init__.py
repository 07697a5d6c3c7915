"""Distillation by an orthogonal projection for distillctl."""
