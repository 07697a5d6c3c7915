"""Models and data sets in a file of one's own, `file:nets.py:Net`, which is run where the command line allows it and nowhere else.

A profile that somebody sends can name any file; so the name means nothing before `Registry.allow_code` was called.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from distillctl.api.specs import DatasetSpec, ModelSpec, Spec
from distillctl.errors import PluginError
from distillctl.plugin.catalog import PREFIX, Plugin
from distillctl.plugin.importing import RefusedError, attempt
from distillctl.plugin.validation import malformed

_FORM = "write `file:nets.py:Net`: a file from the current directory, and a class or function in it"


class OwnFiles:
    """The objects of one kind in files that were named, and what stands for their package: the file, with the start of its hash.

    kind: the word for one of them.
    declare: from a name, the module of its file and the attribute in it, what a package would declare.
    """

    def __init__(self, kind: str, declare: Callable[[str, ModuleType, str], Spec]) -> None:
        self._kind, self._declare = kind, declare
        self._known: dict[str, Spec] = {}
        self.plugins: dict[str, Plugin] = {}

    # Any, as a family's: the type of a catalog's specs is open.
    def find(self, name: str) -> Any:
        """The object of a name that begins with `file:`. The file is run, once.

        Raises:
            PluginError: the name is of another form, there is no such file, it raises, or has nothing of that name.
        """
        if name not in self._known:
            file, _, attribute = name.removeprefix(PREFIX).rpartition(":")
            if not file.endswith(".py") or not attribute.isidentifier():
                raise PluginError(f"`{name}` does not name a {self._kind} in a file", hint=_FORM)
            module, digest = _module(file)
            if not callable(getattr(module, attribute, None)):
                raise PluginError(f"`{file}` has no class or function `{attribute}`", hint=_FORM)
            spec = replace(self._declare(name, module, attribute), summary=f"`{attribute}` of `{file}`")
            if wrong := malformed(replace(spec, name=attribute)):
                raise PluginError(f"what `{file}` states is not right: {wrong}")
            self._known[name] = spec
            self.plugins[name] = Plugin(file, f"{PREFIX}{file}", digest[:12])
        return self._known[name]


def model(name: str, module: ModuleType, attribute: str) -> ModelSpec:
    """`NAME(num_classes=…)` builds it. The file may state `STAGES` and `CLASSIFIER`, as `ModelSpec` has them, and `INPUT_SIZE`."""
    made = getattr(module, attribute)

    def build(_name: str, num_classes: int, _options: object) -> Any:
        return made(num_classes=num_classes)

    setattr(module, f"_build_{attribute}", build)
    return ModelSpec(
        name=name,
        summary="",
        implementation=f"{module.__name__}:_build_{attribute}",
        stages=getattr(module, "STAGES", {}),
        classifier=getattr(module, "CLASSIFIER", ""),
        input_size=getattr(module, "INPUT_SIZE", 224),
    )


def dataset(name: str, module: ModuleType, attribute: str) -> DatasetSpec:
    """`NAME(options, seed)` gives `distillctl.Splits`, as `DatasetSpec` has it. The file may state `OPTIONS`, the class of its options."""
    options = f"{module.__name__}:OPTIONS" if hasattr(module, "OPTIONS") else ""
    return DatasetSpec(name=name, summary="", implementation=f"{module.__name__}:{attribute}", options=options)


def _module(file: str) -> tuple[ModuleType, str]:
    """The file, run, under a name that its content decides; and the hash of what was run."""
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        raise PluginError(f"`{file}` cannot be read: {getattr(error, 'strerror', None) or error}", hint=_FORM) from error
    digest = hashlib.sha256(content).hexdigest()
    name = f"distillctl_file_{digest[:16]}"
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)  # first, since dataclasses and pickle look there
        module.__file__ = str(Path(file).absolute())
        try:
            attempt(lambda: exec(compile(content, file, "exec"), module.__dict__))
        except RefusedError as error:
            del sys.modules[name]
            raise PluginError(f"`{file}` cannot be run: {error}") from error.__cause__
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name], digest
