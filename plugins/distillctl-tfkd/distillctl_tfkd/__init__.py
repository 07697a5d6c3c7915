"""Teacher-free distillation, a distillctl plugin."""
