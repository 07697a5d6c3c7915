"""FitNet's hints, a distillctl plugin."""
