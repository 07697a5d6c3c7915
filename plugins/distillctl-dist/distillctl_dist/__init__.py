"""DIST, distillation by correlations, for distillctl."""
