"""Scale decoupled distillation for distillctl."""
