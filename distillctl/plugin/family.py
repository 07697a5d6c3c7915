"""A family of models: each is declared when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distillctl.api.specs import ModelFamily, ModelSpec
from distillctl.errors import PluginError
from distillctl.plugin.validation import malformed

if TYPE_CHECKING:
    from distillctl.plugin.catalog import Plugin


class Family:
    """What a hook declares as a family, and which of its models are known by now.

    load: gives the object that a reference names.
    """

    def __init__(self, spec: ModelFamily, plugin: Plugin, load: Callable[[str, str], Any]) -> None:
        self.spec, self.plugin = spec, plugin
        self._load = load
        self._known: dict[str, ModelSpec | None] = {}
        self._names: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """What its models' names begin with."""
        return self.spec.name

    def names(self) -> Mapping[str, str]:
        """Name without the family's → summary."""
        if self._names is None:
            self._names = self._load(self.spec.names, self.name)()
        return self._names

    # Any, since a catalog of models alone has families, and the type of its specs is open.
    def find(self, name: str) -> Any:
        """The model of this name, without the family's; None if there is none.

        Raises:
            PluginError: the family cannot be loaded, or gives something else.
        """
        if name not in self._known:
            found = self._load(self.spec.implementation, self.name)(name)
            if found is not None:
                wrong = malformed(found) if type(found) is ModelSpec else f"{type(found).__name__!r} instead of a ModelSpec"
                if not wrong and (found.namespace, found.name) != (self.name, name):
                    wrong = f"a model called `{found.qualified}`"
                if wrong:
                    raise PluginError(f"the family `{self.name}` gives for `{name}` {wrong}")
            self._known[name] = found
        return self._known[name]
