"""MobileNetV1, the student of the ImageNet benchmark."""
