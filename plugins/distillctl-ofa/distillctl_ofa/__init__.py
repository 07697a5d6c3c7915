"""One-for-all distillation across architectures for distillctl."""
