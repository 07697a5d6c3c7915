"""R-Drop, agreement of two dropout passes, a distillctl plugin."""
