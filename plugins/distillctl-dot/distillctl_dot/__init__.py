"""The distillation-oriented trainer, an optimizer, a distillctl plugin."""
