"""Flow of solution procedure, a distillctl plugin."""
