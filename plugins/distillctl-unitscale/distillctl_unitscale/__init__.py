"""The teacher's maps at unit scale, a distillctl wrapper."""
