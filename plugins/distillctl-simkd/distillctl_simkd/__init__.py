"""SimKD, the reused teacher classifier, a distillctl plugin."""
