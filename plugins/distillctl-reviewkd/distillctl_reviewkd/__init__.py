"""Knowledge review for distillctl."""
