"""Be your own teacher for distillctl: the deepest exit of a network teaches exits at its shallow stages."""
