"""What importing the modules of plugins loads, seen from an interpreter that has loaded nothing else.

As a program: reads pairs of module and spec as JSON from stdin, and writes what it found about each.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial

_found: dict[tuple[str, str], str] = {}


def complaint(module: str, spec: str, others: Iterable[tuple[str, str]] = ()) -> str:
    """What is wrong with the imports of a plugin's module and of the options of one of its specs; empty if nothing is.

    others: more pairs of module and spec, which the same interpreter looks at: starting one for each would take most of the time
        of a contract. Of several modules that load the same heavy package, only the first is told.
    """
    if (module, spec) not in _found:
        pairs = dict.fromkeys([(module, spec), *others])
        asked = json.dumps([pair for pair in pairs if pair not in _found])
        command = [sys.executable, "-m", __name__]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=False)
        assert not done.returncode, done.stderr
        _found.update({(a, b): text for a, b, text in json.loads(done.stdout)})
    return _found[module, spec]


def _look(pairs: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    texts: dict[tuple[str, str], str] = dict.fromkeys(pairs, "")
    options: dict[tuple[str, str], str] = {}

    def step(pair: tuple[str, str], act: Callable[[], object], what: str, *heavy: str) -> None:
        light = [name for name in heavy if name not in sys.modules]
        try:
            act()
        except Exception:  # noqa: BLE001 - code of plugins, of which the test tells
            texts[pair] = texts[pair] or traceback.format_exc()
        loaded = [name for name in light if name in sys.modules]
        texts[pair] = texts[pair] or (f"{what} imports {' and '.join(loaded)}" if loaded else "")

    def declare(pair: tuple[str, str]) -> None:
        specs = importlib.import_module(pair[0]).register_method()
        options[pair] = next(s for s in (specs if isinstance(specs, list | tuple) else [specs]) if s.name == pair[1]).options

    for pair in pairs:
        step(pair, partial(declare, pair), "listing the methods", "torch", "pydantic")
    for pair, place in options.items():
        if place:
            step(pair, partial(importlib.import_module, place.partition(":")[0]), "the module of the options", "torch")
    return [(*pair, text) for pair, text in texts.items()]


if __name__ == "__main__":
    print(json.dumps(_look([(a, b) for a, b in json.load(sys.stdin)])))  # noqa: T201
