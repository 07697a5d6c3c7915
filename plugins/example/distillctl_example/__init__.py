"""The example of distillctl's guide for plugin authors: `mimic`, logits matched by squared error."""
