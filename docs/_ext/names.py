"""What the reference documents: the public names of a module, and the fixtures of the pytest plugin."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any, NamedTuple


class Fixture(NamedTuple):
    """A fixture of the plugin."""

    name: str
    scope: str
    text: str


def public_names(module: str) -> list[str]:
    """Return a module's public names: those it lists in `__all__`, or else those it defines."""
    found = importlib.import_module(module)
    listed = getattr(found, "__all__", None)
    if listed is not None:
        return [name for name in listed if name != "__version__"]
    return [name for name, item in vars(found).items() if not name.startswith("_") and _is_of(found, item)]


def directive_of(module: str, name: str) -> list[str]:
    """Return the lines of the autodoc directive that documents a public name."""
    item: Any = getattr(importlib.import_module(module), name)
    full = f"{module}.{name}"
    if inspect.isclass(item) and issubclass(item, BaseException):
        return [f".. autoexception:: {full}", "   :show-inheritance:"]
    if inspect.isclass(item):
        return [
            f".. autoclass:: {full}",
            "   :members:",
            "   :inherited-members: Struct,Exception,tuple,str,Protocol,Generic",
        ]
    if inspect.isroutine(item):
        return [f".. autofunction:: {full}"]
    return [f".. autodata:: {full}", "   :no-value:"]


def fixtures() -> list[Fixture]:
    """Return the plugin's fixtures, in the order of their names."""
    plugin = importlib.import_module("agola_pytest.plugin")
    return [
        Fixture(name, item._fixture_function_marker.scope, inspect.getdoc(item) or "")  # noqa: SLF001 - told nowhere else
        for name, item in sorted(vars(plugin).items())
        if hasattr(item, "_fixture_function_marker")
    ]


def _is_of(module: ModuleType, item: object) -> bool:
    return (inspect.isclass(item) or inspect.isfunction(item)) and item.__module__ == module.__name__
