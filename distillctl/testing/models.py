"""`ModelContract`: what every model that a plugin declares must keep; and the tiny models for other tests."""

from __future__ import annotations

from distillctl.testing.tiny_models import TINY_CNN, TINY_MODELS, TINY_VIT, TINY_WIDE, TinyCNN, TinyOptions, TinyViT, build_tiny

__all__ = ["TINY_CNN", "TINY_MODELS", "TINY_VIT", "TINY_WIDE", "TinyCNN", "TinyOptions", "TinyViT", "build_tiny"]
