"""The images of ImageNet (ILSVRC 2012) for distillctl."""
