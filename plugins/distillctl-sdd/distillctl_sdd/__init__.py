"""Scale decoupled distillation, a distillctl plugin."""
