"""Knowledge review, a distillctl plugin."""
