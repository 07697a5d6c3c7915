"""Teacher-free distillation for distillctl: a virtual teacher, or an earlier training of the same network, instead of a larger network."""
