"""Be your own teacher, multi-exit self-distillation, a distillctl plugin."""
