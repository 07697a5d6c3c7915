"""Flow of solution procedure (FSP), a distillation method of distillctl."""
