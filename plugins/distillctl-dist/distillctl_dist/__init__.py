"""DIST, distillation by correlations, a distillctl plugin."""
