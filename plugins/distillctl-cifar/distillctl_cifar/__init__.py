"""The CIFAR model zoo and the data sets CIFAR-10 and CIFAR-100 for distillctl."""
