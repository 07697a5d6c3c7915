"""CIFAR-10 and CIFAR-100: from torchvision's files or from folders of images, into memory."""
