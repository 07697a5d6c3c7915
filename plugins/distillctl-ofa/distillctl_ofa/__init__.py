"""One-for-all distillation across architectures, a distillctl plugin."""
