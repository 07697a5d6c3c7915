"""The images of Tiny-ImageNet for distillctl."""
