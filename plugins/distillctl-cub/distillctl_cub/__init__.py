"""The bird images of CUB-200-2011 for distillctl."""
