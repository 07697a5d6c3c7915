"""Image sets of Hugging Face for distillctl."""
