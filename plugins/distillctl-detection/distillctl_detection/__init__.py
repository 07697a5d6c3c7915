"""Object detection for distillctl."""
