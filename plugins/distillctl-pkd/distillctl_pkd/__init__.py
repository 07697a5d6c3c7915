"""PKD, distillation of standardised feature maps, for distillctl."""
