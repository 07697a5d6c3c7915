"""Channel-wise distillation for distillctl."""
