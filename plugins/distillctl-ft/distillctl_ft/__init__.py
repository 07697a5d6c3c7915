"""Factor transfer, a distillctl plugin."""
