"""What this package declares to distillctl."""

from __future__ import annotations
