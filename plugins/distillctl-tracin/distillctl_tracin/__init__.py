"""TracIn over the checkpoints of runs, a distillctl command."""
