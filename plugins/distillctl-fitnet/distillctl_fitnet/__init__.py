"""FitNet's hints for distillctl."""
