"""What a run is: every value of its resolved profile that its result depends on, and the digest of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distillctl.profile.document import dotted
from distillctl.profile.toml_file import Key

_NO_PART = {("dataset", "cache"), ("train", "workers"), ("train", "save_every"), ("tracker",)}
"""Keys that change nothing of the result: a run goes on with other values as the same run."""


def identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is: every value that its result depends on, by dotted key.

    Paths below the current directory count from there, so that a moved checkout with its data and runs is the same.
    """
    return dict(_leaves(resolved, ()))


def _leaves(value: Any, key: Key) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or (not value and key):
        yield dotted(key), value.removeprefix(f"{Path.cwd()}/") if isinstance(value, str) else value
        return
    for part, item in items:
        if (*key, part) not in _NO_PART:
            yield from _leaves(item, (*key, part))


def digest_of(resolved: Mapping[str, Any]) -> str:
    """sha256 of a run's identity in one canonical form, in hexadecimal."""
    text = json.dumps(identity(resolved), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
