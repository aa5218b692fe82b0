"""Names and modules that are imported when they are first used, so that short commands start fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package (PEP 562).

    Args:
        package: Its name.
        places: By module, relative to the package, the names that it hands out, separated by spaces. The modules'
            own first parts are known, too.
    """
    modules = {name: module for module, names in places.items() for name in names.split()}
    parts = {module.partition(".")[0] for module in places}

    def get(name: str) -> Any:
        if name in modules:
            value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in parts:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


class LazyModule(ModuleType):
    """Stands in for a module that annotations name, so that `typing.get_type_hints` finds its types without an import.

    Example:
        >>> LazyModule("fractions").Fraction(1, 2)
        Fraction(1, 2)
    """

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module, which is imported."""
        if name.startswith("__"):  # somebody looks at all modules there are
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)
