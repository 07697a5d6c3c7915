"""Factor transfer (FT), a distillation method of distillctl."""
