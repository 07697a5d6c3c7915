"""SimKD, the reused teacher classifier, a distillation method of distillctl."""
